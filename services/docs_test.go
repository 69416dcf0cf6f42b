package services_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
	made := regexp.MustCompile(`(?:Counter|Gauge|Histogram)\(\s*"(forge\.[^"]+)"`)
	found := 0
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".go" {
			return err
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, metric := range made.FindAllStringSubmatch(string(source), -1) {
			if found++; !strings.Contains(text.String(), "`"+metric[1]+"`") {
				t.Errorf("%s measures %s, which no page in docs names", name, metric[1])
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d metrics, error %v", found, err)
	}
}
