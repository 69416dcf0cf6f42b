package terminal

import (
	"bytes"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
)

func rendered(t *testing.T, lines ...string) string {
	t.Helper()
	var r Renderer
	var all []string
	for _, line := range lines {
		shown, err := r.Line([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, shown)
	}
	return strings.Join(all, "\n")
}

func TestLinesBecomeHTML(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"text":                    {`a <b> & "c" 'd' /e`, `a &lt;b&gt; &amp; "c" &#39;d&#39; /e`},
		"colours":                 {"\x1b[1;32mok\x1b[0m", `<span class="term-fg32 term-fg1">ok</span>`},
		"a background":            {"\x1b[41;97m FAIL \x1b[m", `<span class="term-fgi97 term-bg41"> FAIL </span>`},
		"one of 256 colours":      {"\x1b[38;5;196mred\x1b[39m", `<span class="term-fg31">red</span>`},
		"one of 16 million":       {"\x1b[38;2;80;250;123;1mgreen\x1b[0m", `<span class="term-fgi92 term-fg1">green</span>`},
		"with colons":             {"\x1b[38:5:21mblue\x1b[0m", `<span class="term-fg34">blue</span>`},
		"a grey":                  {"\x1b[48;5;238mgrey\x1b[0m", `<span class="term-bgi100">grey</span>`},
		"half of one":             {"\x1b[38;5mx\x1b[38m", "x"},
		"a progress bar":          {" 10%\r 50%\r100%\r", "100%"},
		"by moves":                {"10%\x1b[1G50%\x1b[2K\x1b[G100%\x1b[0K", "100%"},
		"drawn shorter":           {"downloading\r\x1b[Kdone", "done"},
		"cleared to the end":      {"downloading\r\x1b[Jdone", "done"},
		"backspaces":              {"abc\b\bX", "aXc"},
		"moves to the right":      {"a\x1b[3Cb", "a   b"},
		"far to the right":        {"a\x1b[999999999Cb\x1b[999999999Gc", "abc"},
		"moves up":                {"\x1b[5Aover\x1b[3;3H\x1b[2J", "over"},
		"a link":                  {"\x1b]8;;https://go.dev/x?a=1&b=2\x1b\\Go\x1b]8;;\x1b\\ on", `<a rel="noreferrer nofollow" href="https://go.dev/x?a=1&amp;b=2">Go</a> on`},
		"a link without an end":   {"\x1b]8;id=1;http://go.dev\x07Go", `<a rel="noreferrer nofollow" href="http://go.dev">Go</a>`},
		"a link to a script":      {"\x1b]8;;javascript:alert(1)\x07x\x1b]8;;\x07", "x"},
		"a link within the page":  {"\x1b]8;;/v1/status\x07x\x1b]8;;\x07", "x"},
		"a link to data":          {"\x1b]8;;data:text/html,<script>\x07x", "x"},
		"a link that breaks out":  {"\x1b]8;;http://x/\"onclick='y'<script>\x07x", `<a rel="noreferrer nofollow" href="http://x/%22onclick=%27y%27%3Cscript%3E">x</a>`},
		"an image":                {"\x1b]1337;File=name=eC5wbmc=;inline=1:aGVsbG8=\x07after", "after"},
		"an image elsewhere":      {"\x1b]1338;url=http://evil/x.png;alt=x\x07after", "after"},
		"another link":            {"\x1b]1339;url=http://evil;content=x\x07after", "after"},
		"a time of Buildkite's":   {"\x1b_bk;t=1\x07after", "after"},
		"control characters":      {"bell\x07 null\x00 tab\t del\x7f csi\u009b1m", "bell null tab\t del csi1m"},
		"no UTF-8":                {"caf\xc3\xa9 \xff", "café \uFFFD"},
		"nothing":                 {"", ""},
		"a sequence without end":  {"seen\x1b]0;never ended", "seen"},
		"half a sequence":         {"text\x1b[3", "text"},
		"colours without a sense": {"\x1b[38;2;300;1;1mx\x1b[99999999999mx", "xx"},
	} {
		if got := rendered(t, c.line); got != c.want {
			t.Errorf("%s: %q is\n%s\nwant\n%s", name, c.line, got, c.want)
		}
	}
}

func TestColoursGoOnToTheNextLineAndLinksDoNot(t *testing.T) {
	got := rendered(t, "\x1b[31mred", "still \x1b]8;;http://x.example\x07linked", "not\x1b[0m linked")
	want := `<span class="term-fg31">red</span>
<span class="term-fg31">still <a rel="noreferrer nofollow" href="http://x.example">linked</a></span>
<span class="term-fg31">not</span> linked`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	var r Renderer
	if err := r.Style([]byte("\x1b[1m\x1b[34m")); err != nil {
		t.Fatal(err)
	}
	if got, _ := r.Line([]byte("x")); got != `<span class="term-fg34 term-fg1">x</span>` {
		t.Errorf("with a style: %s", got)
	}
	if err := r.Style(nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := r.Line([]byte("x")); got != "x" {
		t.Errorf("without: %s", got)
	}
}

func TestLinesOfAnyLengthFit(t *testing.T) {
	var r Renderer
	for _, size := range []int{1, 511, 512, 513, 100_000, 5} {
		got, err := r.Line(bytes.Repeat([]byte("x"), size))
		if err != nil || got != strings.Repeat("x", size) {
			t.Errorf("%d letters become %d bytes, %v", size, len(got), err)
		}
	}
	if got, err := r.Line(bytes.Repeat([]byte("a\x1b[4000Cb\rc"), 1000)); err != nil || len(got) > 6000 || strings.Contains(got, "\n") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	redrawn := append(bytes.Repeat([]byte("progress\r"), 1_000_000), "done\x1b[K"...)
	if got, err := r.Line(redrawn); err != nil || got != "done" {
		t.Errorf("%.40s, %v", got, err)
	}
}

func TestHitsAreMarked(t *testing.T) {
	for _, c := range []struct{ line, query, want string }{
		{"an error, an error", "error", "an <mark>error</mark>, an <mark>error</mark>"},
		{"a <b> & c", "> &", "a &lt;b<mark>&gt; &amp;</mark> c"},
		{"an \x1b[31merr\x1b[1mor\x1b[0m!", "error!", `an <span class="term-fg31"><mark>err</mark></span><mark></mark><span class="term-fg31 term-fg1"><mark>or</mark></span><mark>!</mark>`},
		{"naïve «é»", "é", "naïve «<mark>é</mark>»"},
		{"aaaa", "aa", "<mark>aa</mark><mark>aa</mark>"},
		{"nothing", "error", "nothing"},
	} {
		got := Highlight(rendered(t, c.line), finds(c.query))
		if got = strings.ReplaceAll(got, "<mark></mark>", ""); got != strings.ReplaceAll(c.want, "<mark></mark>", "") {
			t.Errorf("%q in %q: %s, want %s", c.query, c.line, got, c.want)
		}
	}
}

func finds(query string) func([]byte) iter.Seq2[int, int] {
	return func(text []byte) iter.Seq2[int, int] {
		return func(yield func(int, int) bool) {
			for _, hit := range regexp.MustCompile(regexp.QuoteMeta(query)).FindAllIndex(text, -1) {
				if !yield(hit[0], hit[1]) {
					return
				}
			}
		}
	}
}

// Whatever is printed, it becomes text, set off by classes, with links that lead elsewhere, and nothing more.
func FuzzRenderer(f *testing.F) {
	for _, seed := range []string{
		"\x1b[31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "10%\r20%\x1b[K", "<script>alert(1)</script>", "\x1b]1338;url=x\x07", "\x1b[38;2;1;2;3;48;5;9mx",
		"a\x1b[9Cb\x1b[3D\x1b[1Kc\b\b", "\x1b]8;;http://x/\"><img src=x>\x07y", "\xff\x00\x1b[\x1b]8;;http://x;y\x07z", "\x1b[Mx\x1b7\x1b8\x1bM", "\x1b_bk;t=1\x07",
	} {
		f.Add([]byte(seed), []byte("second"))
	}
	classes := regexp.MustCompile(`^(term-(fg|bg|fgi|bgi)\d+ ?)+$`)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var r Renderer
		for _, line := range [][]byte{first, second} {
			line = bytes.ReplaceAll(line, []byte("\n"), nil)
			shown, err := r.Line(line)
			if err != nil {
				t.Fatal(err)
			}
			if len(shown) > 200*(len(line)+maxMove) {
				t.Errorf("%d bytes become %d", len(line), len(shown))
			}
			if marked := Highlight(shown, finds("e")); strings.NewReplacer("<mark>", "", "</mark>", "").Replace(marked) != shown {
				t.Errorf("marks change %q: %q", shown, marked)
			}
			if strings.Contains(shown, "\n") || !utf8.ValidString(shown) {
				t.Errorf("%q becomes %q", line, shown)
			}
			tree, err := html.ParseFragment(strings.NewReader(shown), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, root := range tree {
				for node := range root.Descendants() {
					if err := harmless(node, classes); err != "" {
						t.Errorf("%q becomes %q: %s", line, shown, err)
					}
				}
			}
		}
	})
}

func harmless(node *html.Node, classes *regexp.Regexp) string {
	switch node.Type {
	case html.TextNode:
		if strings.ContainsFunc(node.Data, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			return "a control character"
		}
		return ""
	case html.ElementNode:
	default:
		return fmt.Sprint("a node of type ", node.Type)
	}
	known := map[string]bool{"html": true, "head": true, "body": true, "span": true, "a": true}
	if !known[node.Data] {
		return "an element " + node.Data
	}
	for _, a := range node.Attr {
		switch {
		case node.Data == "span" && a.Key == "class" && classes.MatchString(a.Val):
		case node.Data == "a" && a.Key == "rel":
		case node.Data == "a" && a.Key == "href" && (strings.HasPrefix(a.Val, "http://") || strings.HasPrefix(a.Val, "https://")):
		default:
			return fmt.Sprintf("%s has %s=%q", node.Data, a.Key, a.Val)
		}
	}
	return ""
}
