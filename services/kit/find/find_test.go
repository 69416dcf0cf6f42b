package find

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func hits(t *testing.T, q Query, text string) string {
	t.Helper()
	f, err := Compile(q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	var all []string
	for begin, end := range f.Each([]byte(text), &Scratch{}) {
		all = append(all, fmt.Sprintf("%d:%s", begin, text[begin:end]))
	}
	return strings.Join(all, " ")
}

func TestQueriesFindWhatTheySay(t *testing.T) {
	const text = "An Error, an error\nERROR 42\nnaïve NAÏVE\na.b axb\n"
	for _, c := range []struct {
		query Query
		want  string
	}{
		{Query{Text: "error"}, "3:Error 13:error 19:ERROR"},
		{Query{Text: "error", MatchCase: true}, "13:error"},
		{Query{Text: "naÏve"}, "28:naïve 35:NAÏVE"},
		{Query{Text: "a.b"}, "42:a.b"},
		{Query{Text: "a.b", Regex: true}, "42:a.b 46:axb"},
		{Query{Text: `err\w+ \d+`, Regex: true}, "19:ERROR 42"},
		{Query{Text: `err\w+ \d+`, Regex: true, MatchCase: true}, ""},
		{Query{Text: "^e", Regex: true}, "19:E"},
		{Query{Text: `[^x]+b`, Regex: true}, "42:a.b"},
		{Query{Text: "x*", Regex: true}, "47:x"},
		{Query{Text: `r\s+E`, Regex: true}, ""},
		{Query{Text: "(error)+", Regex: true}, "3:Error 13:error 19:ERROR"},
		{Query{Text: "an|42", Regex: true, MatchCase: true}, "10:an 25:42"},
	} {
		if got := hits(t, c.query, text); got != c.want {
			t.Errorf("%+v: %q, want %q", c.query, got, c.want)
		}
	}
}

func TestQueriesThatAreNone(t *testing.T) {
	for _, q := range []Query{
		{},
		{Text: strings.Repeat("x", MaxQuery+1)},
		{Text: "a(", Regex: true},
		{Text: "\xff"},
		{Text: `(a)\1`, Regex: true},
		{Text: "((a{1000}){1000}){1000}", Regex: true},
	} {
		if _, err := Compile(q); err == nil {
			t.Errorf("%.20q is taken", q.Text)
		}
	}
}

// However fast it is, it finds what the expression alone would.
func FuzzEach(f *testing.F) {
	f.Add("err(or)+ x?", "error, error x\nERROR", true, false)
	f.Add("a", "aAaA\n\na", false, false)
	f.Add("(?i)k|s+", "KkSs", true, true)
	f.Fuzz(func(t *testing.T, query, text string, regex, matchCase bool) {
		f, err := Compile(Query{query, regex, matchCase})
		if err != nil {
			return
		}
		plain := query
		if !regex {
			plain = regexp.QuoteMeta(plain)
		}
		if !matchCase {
			plain = "(?i)" + plain
			text = strings.Map(func(r rune) rune { // the only letters that fold to ASCII from outside
				if r == 'ſ' || r == 'K' {
					return -1
				}
				return r
			}, text)
		}
		var got, want []string
		for begin, end := range f.Each([]byte(text), &Scratch{}) {
			got = append(got, fmt.Sprint(begin, end))
		}
		at := 0
		for line := range strings.SplitSeq(text, "\n") {
			for _, hit := range regexp.MustCompile(plain).FindAllStringIndex(line, -1) {
				if hit[0] < hit[1] {
					want = append(want, fmt.Sprint(at+hit[0], at+hit[1]))
				}
			}
			at += len(line) + 1
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q in %q: %v, want %v", query, text, got, want)
		}
	})
}
