package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// outline is a tree in short: keys, texts and what is within.
func outline(t *tree) string {
	text := t.Key + "=" + t.Text
	if len(t.Children) > 0 {
		var within []string
		for _, child := range t.Children {
			within = append(within, outline(child))
		}
		text += "(" + strings.Join(within, " ") + ")"
	}
	if t.Cut {
		text += "…"
	}
	return text
}

func TestAPayloadIsATree(t *testing.T) {
	for payload, want := range map[string]string{
		`{"b":1,"a":{"login":"ada","id":12345678901234567890},"c":[true,null,"x"],"d":{},"e":[]}`: "=5 keys(b=1 a=ada(login=ada id=12345678901234567890) c=3 of them(0=true 1=null 2=x) d=empty e=empty)",
		`[]`:                         "=empty",
		`"text"`:                     "=text",
		`nonsense <b>`:               "=nonsense <b>",
		`{"a":`:                      `={"a":`,
		"\xff\xfe":                   "=\uFFFD",
		`{"id":null,"name":"it"}`:    "=2 keys(id=null name=it)",
		`{"a":{"title":{"x":1}}}`:    "=1 key(a=1 key(title=1 key(x=1)))",
		`{"a":1}{"b":2} and more`:    "=1 key(a=1)",
		`{"a":"` + long(5000) + `"}`: "=1 key(a=" + long(mostText) + "…)",
	} {
		if got := outline(parseTree([]byte(payload))); got != want {
			t.Errorf("%.60s: %.200s, want %.200s", payload, got, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestATreeIsBounded(t *testing.T) {
	many, err := json.Marshal(make([]int, 3*mostNodes))
	if err != nil {
		t.Fatal(err)
	}
	if root := parseTree(many); len(root.Children) != mostNodes-1 || !root.Cut {
		t.Errorf("%d parts of a large array, cut %v", len(root.Children), root.Cut)
	}
	deep := strings.Repeat(`{"a":`, 100000) + "1" + strings.Repeat("}", 100000)
	depth := 0
	for at := parseTree([]byte(deep)); len(at.Children) > 0; at = at.Children[0] {
		depth++
	}
	if depth > mostDepth {
		t.Errorf("%d deep", depth)
	}
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"x"}]}`))
	f.Add([]byte(`{"a":`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		nodes := 0
		var walk func(*tree)
		walk = func(at *tree) {
			nodes++
			for _, child := range at.Children {
				walk(child)
			}
		}
		if walk(parseTree(payload)); nodes > mostNodes {
			t.Errorf("%d nodes", nodes)
		}
	})
}

func TestAStripIsDrawnWithinItsFrame(t *testing.T) {
	if stripOf(nil) != nil || stripOf([]*schedulerv1.BuildDay{{Date: "2026-11-27"}}) != nil {
		t.Error("a strip of nothing")
	}
	s := stripOf([]*schedulerv1.BuildDay{
		{Date: "2026-11-25", Passed: 1000000, Failed: 1, Errored: 1, Cancelled: 1, MedianDuration: durationpb.New(time.Hour)},
		{Date: "2026-11-26"},
		{Date: "2026-11-27", Failed: 1, MedianDuration: durationpb.New(0)},
	})
	for _, day := range s.Days {
		for name, bar := range map[string]stripBar{"passed": day.Passed, "failed": day.Failed, "other": day.Other, "took": day.Took} {
			if bar.Y < 0 || bar.Y+bar.Height > stripHeight {
				t.Errorf("%s of %s is at %d, %d high", name, day.Date, bar.Y, bar.Height)
			}
		}
	}
	if one := s.Days[0]; one.Failed.Height < leastHeight || one.Failed.Y+one.Failed.Height != one.Passed.Y || one.Text != "2026-11-25: 1000000 passed, 1 failed, 1 errored, 1 cancelled, half of those that passed within 1h0m0s" {
		t.Errorf("the first day: %+v", one)
	}
	if got := fmt.Sprint(s.Rate, s.Median, s.Longest, s.Days[1].Text); got != "99 %0 ms1h0m0s2026-11-26: nothing ended" {
		t.Errorf("in words: %s", got)
	}
}
