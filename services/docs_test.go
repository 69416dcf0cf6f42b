package services_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// matches calls found with what a pattern's group matches in our source.
func matches(t *testing.T, pattern string, found func(file, match string)) {
	t.Helper()
	compiled, n := regexp.MustCompile(pattern), 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".go" {
			return err
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, match := range compiled.FindAllStringSubmatch(string(source), -1) {
			n++
			found(name, match[1])
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d matches of %s, error %v", n, pattern, err)
	}
}

// What is measured stands in some page, since who is woken at night looks there.
func TestEveryMetricIsDocumented(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(content)
	}
	matches(t, `(?:Counter|[gG]auge|Histogram)\(\s*"((?:forge|cicd|db)\.[^"]+)"`, func(file, metric string) {
		if !strings.Contains(text.String(), "`"+metric+"`") {
			t.Errorf("%s measures %s, which no page in docs names", file, metric)
		}
	})
}

// Why builds wait stands in the page on watching, by the words that metrics have for it.
func TestEveryReasonToWaitIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/watching.md")
	if err != nil {
		t.Fatal(err)
	}
	for number := range schedulerv1.Build_Reason_name {
		reason := schedulerv1.Build_Reason(number)
		if _, waits := wording.Waits(reason); waits && !strings.Contains(string(page), "`"+wording.Value(reason)+"`") {
			t.Errorf("docs/watching.md does not say what %v is", reason)
		}
	}
}

// The page on performance has a row for each benchmark, and for no other.
func TestEveryBenchmarkIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(string(page), -1) {
		named[row[1]] = true
	}
	matches(t, `(?m)^func Benchmark(\w+)\(`, func(file, name string) {
		if !named[name] {
			t.Errorf("%s has Benchmark%s, which docs/performance.md does not name", file, name)
		}
		delete(named, name)
	})
	for name := range named {
		t.Errorf("docs/performance.md names %s, which is no benchmark", name)
	}
}
