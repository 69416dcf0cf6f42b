package testreport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// files are those of the workspace that the reports of testdata speak of.
var files = []string{
	"tests/test_shop.py", "tests/test_broken.py", "cart/cart_test.go", "cart/cart.go", "broken/broken_test.go", "src/cart.test.js", "src/cart.rs", "src/a b.js",
	"php/CartTest.php", "java/src/test/java/com/acme/CartTest.java", "java/src/test/java/com/acme/Helper.java",
}

// collected reads a report; each test and finding is a line.
func collected(read func(io.Reader, Report) error, from io.Reader, name string) (lines []string, err error) {
	err = read(from, Report{
		Path: name, Workspace: "/workspace", Exists: func(name string) bool { return slices.Contains(files, name) },
		Test: func(t *schedulerv1.Test) error {
			flaky := ""
			if t.GetFlaky() {
				flaky = " flaky"
			}
			lines = append(lines, fmt.Sprintf("%s%s %s | %s | %s @ %s:%d %v %q", strings.TrimPrefix(t.GetState().String(), "STATE_"), flaky,
				t.GetSuite(), t.GetClass(), t.GetName(), t.GetFile(), t.GetLine(), t.GetDuration().AsDuration(), t.GetMessage()))
			return nil
		},
		Finding: func(f *schedulerv1.Finding) error {
			lines = append(lines, fmt.Sprintf("%s %s %s @ %s:%d-%d %q", strings.TrimPrefix(f.GetLevel().String(), "LEVEL_"), f.GetTool(), f.GetRule(),
				f.GetFile(), f.GetLine(), f.GetEndLine(), f.GetMessage()))
			return nil
		},
	})
	return lines, err
}

func readers() map[string]func(io.Reader, Report) error {
	return map[string]func(io.Reader, Report) error{".xml": JUnit, ".json": Go, ".sarif": SARIF}
}

func TestDialectsAreRead(t *testing.T) {
	const golden = "testdata/reports.golden"
	var got bytes.Buffer
	for _, pattern := range []string{"testdata/*.xml", "testdata/java/target/*/*.xml", "testdata/*.json", "testdata/*.sarif"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range names {
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := collected(readers()[filepath.Ext(name)], file, strings.TrimPrefix(name, "testdata/"))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_ = file.Close()
			fmt.Fprintf(&got, "== %s\n%s\n", name, strings.Join(lines, "\n"))
		}
	}
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got.String() != string(want) {
		t.Errorf("got\n%s\nwhich %s has not (%v)", &got, golden, err)
	}
}

// one is a report of one test.
func one(inner string) string {
	return `<testsuites><testsuite name="s"><testcase name="n">` + inner + `</testcase></testsuite></testsuites>`
}

func TestWhatIsNoReportSaysWhy(t *testing.T) {
	laughs := `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><testsuites>&lol2;</testsuites>`
	deep := strings.Repeat("<testsuite>", 1000)
	for name, c := range map[string]struct {
		ext, text, want string
		tests           int
	}{
		"empty":               {".xml", "", "it is empty", 0},
		"blank":               {".xml", " \n", "it is empty", 0},
		"other XML":           {".xml", "<html><body/></html>", "it is no JUnit XML: it begins with <html>, not with <testsuites> or <testsuite>", 0},
		"no XML":              {".xml", "hello", "it is empty", 0},
		"billion laughs":      {".xml", laughs, "it has a document type, which is not read", 0},
		"an outside entity":   {".xml", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>` + one("&x;"), "it has a document type, which is not read", 0},
		"an unknown entity":   {".xml", one("<failure>&x;</failure>"), "it is no XML: XML syntax error on line 1: invalid character entity &x;", 0},
		"deep":                {".xml", deep, "its elements are nested deeper than 100 levels", 0},
		"deep in a test":      {".xml", one(strings.Repeat("<a>", 1000)), "its elements are nested deeper than 100 levels", 0},
		"broken off":          {".xml", `<testsuite><testcase name="a"/><testcase na`, "it is no XML: XML syntax error on line 1: unexpected EOF", 1},
		"crossed":             {".xml", `<testsuite><testcase name="a"></testsuite>`, "it is no XML: XML syntax error on line 1: element <testcase> closed by </testsuite>", 0},
		"not UTF-8":           {".xml", one("<failure>\xff\xfe</failure>"), "it is no XML: XML syntax error on line 1: invalid UTF-8", 0},
		"UTF-16":              {".xml", "\xff\xfe<\x00?\x00x\x00", "it is no XML: XML syntax error on line 1: invalid UTF-8", 0},
		"another encoding":    {".xml", `<?xml version="1.0" encoding="EBCDIC"?>` + one(""), `it is no XML: xml: opening charset "EBCDIC": its encoding "EBCDIC" is not read: write it as UTF-8`, 0},
		"a long tag":          {".xml", "<testsuite " + strings.Repeat(`a="b" `, 60_000) + "/>", "it is no XML: it has a tag of more than 256 KiB", 0},
		"a long instruction":  {".xml", "<?xml " + strings.Repeat("x", 5000), "it is no XML: it has a processing instruction of more than 4 KiB", 0},
		"JSON of another":     {".json", `{"a":1}` + "\n[]\n", "it holds nothing that go test -json prints", 0},
		"text":                {".json", "PASS\nok\n", "it holds nothing that go test -json prints", 0},
		"no SARIF":            {".sarif", `{"version":"2.1.0"}`, "it is no SARIF: it has no runs", 0},
		"a list":              {".sarif", `[1,2]`, "it is no SARIF: it has no runs", 0},
		"no JSON":             {".sarif", `<sarif/>`, "it is no JSON: invalid character '<' looking for beginning of value", 0},
		"cut JSON":            {".sarif", `{"runs":[{"results":[{"message":{"text":"a"}}`, "it is no SARIF: it ends too early", 1},
		"an empty SARIF":      {".sarif", ``, "it is no SARIF: it ends too early", 0},
		"deep lists":          {".sarif", `{"a":` + strings.Repeat("[", 100_000), "its values are nested deeper than 100 levels", 0},
		"deep lists as asked": {".sarif", `{"runs":` + strings.Repeat("[", 100_000), "its values are nested deeper than 100 levels", 0},
		"a long number":       {".sarif", `{"a":` + strings.Repeat("1", 10_000), "it has a number of more than 4 KiB", 0},
	} {
		lines, err := collected(readers()[c.ext], strings.NewReader(c.text), "r"+c.ext)
		if err == nil || err.Error() != c.want || len(lines) != c.tests {
			t.Errorf("%s: %q and %d results, want %q and %d", name, err, len(lines), c.want, c.tests)
		}
	}
}

func TestOddReportsAreRead(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"Latin-1":        {`<?xml version="1.0" encoding="ISO-8859-1"?>` + one("<failure message='caf\xe9'/>"), `"café"`},
		"a mark":         {"\ufeff" + one("<failure>x</failure>"), `"x"`},
		"control":        {one("<failure>a\x1bb\x00c</failure>"), `"a b c"`},
		"CDATA twice":    {one("<failure><![CDATA[a]]]]><![CDATA[>b]]></failure>"), `"a]]>b"`},
		"comments":       {one("<!-- <failure> --><failure>a<!-- b -- - >--></failure>"), `"a"`},
		"entities":       {one("<failure message='&quot;&lt;'>&amp;&#65;</failure>"), `"\"<\n&A"`},
		"both":           {one("<failure message='m'>m, and more</failure>"), `"m, and more"`},
		"two failures":   {one("<failure message='a'>1</failure><error message='b'>2</error>"), `"a\n1"`},
		"what it prints": {one("<failure>a</failure><system-out>b</system-out>"), `"a"`},
	} {
		lines, err := collected(JUnit, strings.NewReader(c.text), "r.xml")
		if err != nil || len(lines) != 1 || !strings.HasSuffix(lines[0], c.want) {
			t.Errorf("%s: %q, error %v, want %s", name, lines, err, c.want)
		}
	}
}

// Whatever a cut falls on, what comes out is XML, or JSON, with what stands after it.
func TestLongTextsAreCut(t *testing.T) {
	for _, unit := range []string{"a", "é", "&amp;", "&#x10FFFF;", "]", "]]", "😀"} {
		for shift := range 12 {
			long := strings.Repeat("x", shift) + strings.Repeat(unit, 2*MaxText/len(unit))
			text := one("<failure message='" + long + "'>" + long + "</failure><system-out>" + long + "</system-out>")
			cdata := one("<failure message='" + long + "'><![CDATA[" + long + "]]></failure>")
			for _, text := range []string{text, cdata} {
				text = strings.Replace(text, "</testsuites>", "<testsuite name='z'><testcase name='last'/></testsuite></testsuites>", 1)
				lines, err := collected(JUnit, strings.NewReader(text), "r.xml")
				if err != nil || len(lines) != 2 || !strings.Contains(lines[1], "last") || len(lines[0]) < MaxText/8 {
					t.Fatalf("%q after %d: %d results, error %v", unit, shift, len(lines), err)
				}
			}
		}
	}
	for _, unit := range []string{"a", "é", `\n`, `\\`, `\"`, `\u00e9`, "😀"} {
		for shift := range 8 {
			long := strings.Repeat("x", shift) + strings.Repeat(unit, 2*MaxText/len(unit))
			text := `{"runs":[{"x":"` + long + `","results":[{"message":{"text":"` + long + `"},"ruleId":"last"}]}]}`
			lines, err := collected(SARIF, strings.NewReader(text), "r.sarif")
			if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "last") {
				t.Fatalf("%q after %d: %q, error %v", unit, shift, lines, err)
			}
		}
	}
}

func TestLinesOfGoTestMayBeOfAnyLength(t *testing.T) {
	text := `{"Action":"output","Package":"p","Test":"A","Output":"` + strings.Repeat("x", 3*maxEvent) + "\"}\n" + `{"Action":"pass","Package":"p","Test":"A"}`
	lines, err := collected(Go, strings.NewReader(text), "r.json")
	if err != nil || len(lines) != 1 {
		t.Errorf("%q, error %v", lines, err)
	}
}

func TestReadingEndsWhereNobodyTakesIt(t *testing.T) {
	enough := errors.New("enough")
	for ext, text := range map[string]string{
		".xml": one("") + one(""), ".json": `{"Action":"pass","Package":"p","Test":"A"}`, ".sarif": `{"runs":[{"results":[{}]}]}`,
	} {
		err := readers()[ext](strings.NewReader(text), Report{
			Exists: func(string) bool { return false },
			Test:   func(*schedulerv1.Test) error { return enough }, Finding: func(*schedulerv1.Finding) error { return enough },
		})
		if !errors.Is(err, enough) {
			t.Errorf("%s: %v", ext, err)
		}
	}
}

func FuzzReports(f *testing.F) {
	for _, ext := range slices.Sorted(maps.Keys(readers())) {
		names, _ := filepath.Glob("testdata/*" + ext)
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for ext, read := range readers() {
			lines, _ := collected(read, bytes.NewReader(text), "r"+ext)
			for _, line := range lines {
				if len(line) > 6*MaxText {
					t.Errorf("%s: a result of %d bytes", ext, len(line))
				}
			}
		}
	})
}
