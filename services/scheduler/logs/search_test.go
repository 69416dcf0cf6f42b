package logs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/find"
	"github.com/forge-ci/forge/services/kit/terminal"
)

func finder(t *testing.T, q find.Query) *find.Finder {
	t.Helper()
	f, err := find.Compile(q)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// searched is all that a search tells.
func searched(t *testing.T, p printed, x *Index, q find.Query, around int64, most int) (after, before []int64, last Hits) {
	t.Helper()
	err := searchLog(t.Context(), p.page, x, finder(t, q), around, most, func(h Hits) error {
		if h.Before {
			before = append(before, h.Lines...)
		} else {
			after = append(after, h.Lines...)
		}
		last = h
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return after, before, last
}

// A search finds each hit in what the log shows, and no other, from wherever it begins.
func TestSearchFindsEachHit(t *testing.T) {
	for seed := range uint64(15) {
		random := rand.New(rand.NewPCG(seed, 7))
		p := randomLog(random)
		p.text = []byte(strings.ReplaceAll(string(p.text), "line 1", "10%\r\x1b[1mLINE\x1b[0m 1"))
		for n := range p.steps { // which lie elsewhere now
			p.steps[n] = int64(len(p.text)) * int64(n) / int64(len(p.steps)+1)
		}
		x, all := p.index(random), p.lines()
		for _, q := range []find.Query{{Text: "line 1"}, {Text: "line 1", MatchCase: true}, {Text: `lin. \d+ x`, Regex: true}, {Text: "g long"}, {Text: "10%"}} {
			var want []int64
			for _, line := range all {
				shown := terminal.Text(line.Text)
				for range finder(t, q).Each([]byte(shown), &find.Scratch{}) {
					want = append(want, line.Number)
				}
			}
			around := random.Int64N(int64(len(all)) + 2)
			after, before, last := searched(t, p, x, q, around, 1_000_000)
			if got := slices.Concat(before, after); !slices.Equal(got, want) {
				t.Errorf("seed %d: %+v around %d: %d hits, want %d, or other ones", seed, q, around, len(got), len(want))
			}
			if last.Count != int64(len(want)) || last.BeforeCount != int64(len(before)) || last.Searched != int64(len(p.text)) {
				t.Errorf("seed %d: %+v: %d hits, %d before, in %d bytes", seed, q, last.Count, last.BeforeCount, last.Searched)
			}
		}
	}
}

func TestSearchListsTheHitsThatAreClosest(t *testing.T) {
	var p printed
	for n := range 100_000 {
		p.text = append(p.text, fmt.Sprintln("a hit, a hit", n)...)
	}
	x := p.index(rand.New(rand.NewPCG(1, 8)))
	after, before, last := searched(t, p, x, find.Query{Text: "A HIT"}, 50_000, 4)
	if got, want := fmt.Sprint(before, after), "[49998 49998 49999 49999] [50000 50000 50001 50001]"; got != want || last.Count != 200_000 || last.BeforeCount != 2*49_999 {
		t.Errorf("%s, %+v; want %s", got, last, want)
	}
}

func TestLongLinesAreSearchedInParts(t *testing.T) {
	const copies = 100_000
	whole := printed{text: []byte("before\n" + strings.Repeat("a needle in a haystack of hay, hay and hay ", copies) + "\nafter a needle\n")}
	x := whole.index(rand.New(rand.NewPCG(2, 8)))
	if _, _, last := searched(t, whole, x, find.Query{Text: "Needle in"}, 0, 10); last.Count != copies {
		t.Errorf("%d needles, want %d", last.Count, copies)
	}
	if after, _, _ := searched(t, whole, x, find.Query{Text: "after a"}, 0, 10); fmt.Sprint(after) != "[3]" {
		t.Errorf("after it: %v", after)
	}
	// Of a line that is drawn again and again the last state is there, and no other.
	redrawn := printed{text: []byte(strings.Repeat("downloading 50%\r", copies) + "downloading 100%\ndone\n")}
	x = redrawn.index(rand.New(rand.NewPCG(3, 8)))
	if after, _, last := searched(t, redrawn, x, find.Query{Text: "downloading"}, 0, 10); last.Count != 1 || fmt.Sprint(after) != "[1]" {
		t.Errorf("redrawn: %d hits, %v", last.Count, after)
	}
}

func TestSearchEndsWhenNobodyWaitsForIt(t *testing.T) {
	p := printed{text: []byte(strings.Repeat("a line\n", 1_000_000))}
	x := p.index(rand.New(rand.NewPCG(4, 8)))
	ctx, cancel := context.WithCancel(t.Context())
	err := searchLog(ctx, p.page, x, finder(t, find.Query{Text: "line"}), 0, 10, func(Hits) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
