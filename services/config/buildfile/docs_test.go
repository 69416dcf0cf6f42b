package buildfile

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const page = "../../../docs/forge-yml.md"

func TestDocsExplainEveryKey(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range Keys() {
		if strings.ContainsRune(key, '.') {
			if !regexp.MustCompile(`(?m)^\|.*` + regexp.QuoteMeta("`"+key+"`") + `.*\|`).Match(text) {
				t.Errorf("%s has no row with `%s`", page, key)
			}
		} else if !strings.Contains(string(text), "\n### "+key+"\n") {
			t.Errorf("%s has no heading %q", page, key)
		}
	}
}

// Examples may be parts: what every file needs is added.
func TestDocsShowWhatTheParserTakes(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```([a-z ]+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < len(names(configKeys())) {
		t.Fatalf("%d blocks", len(blocks))
	}
	for i, block := range blocks {
		var printed strings.Builder
		example := block[2]
		for keys, needed := range map[string]string{"image": "image: busybox\n", "execute|jobs": "execute: make\n"} {
			if block[1] == "yaml" && !regexp.MustCompile(`(?m)^(`+keys+`):`).MatchString(example) {
				example = needed + example
			}
		}
		_, problems := Parse([]byte(example))
		printed.WriteString(Format(Name, problems))
		switch {
		case block[1] == "yaml" && printed.Len() > 0:
			t.Errorf("the example\n%s\ngives\n%s", example, &printed)
		case block[1] == "yaml broken" && printed.String() != blocks[i+1][2]:
			t.Errorf("the example\n%s\ngives\n%s", example, &printed)
		}
	}
}
