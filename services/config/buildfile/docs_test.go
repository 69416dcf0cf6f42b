package buildfile

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
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

func TestDocsListTheVariablesOfKeys(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n### cache\n")
	section, _, _ := strings.Cut(after, "\n### ")
	row := regexp.MustCompile(`(?m)^\| .\$\{FORGE_SHA\}.*$`).FindString(section)
	listed := map[string]bool{}
	for _, name := range regexp.MustCompile(`FORGE_[A-Z_]+`).FindAllString(row, -1) {
		listed[name] = true
		if !regexp.MustCompile(`(?m)^\| .*` + "`" + name + "`" + `.* \|`).MatchString(strings.Replace(string(text), row, "", 1)) {
			t.Errorf("%s does not say what %s is", page, name)
		}
	}
	for _, name := range keyVariables {
		if !listed[name] {
			t.Errorf("%s does not say that a key can name %s", page, name)
		}
	}
	if len(listed) != len(keyVariables) {
		t.Errorf("%s lists %v, not %v", page, listed, keyVariables)
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

// The page on moving shows whole files, each of another system's and what it is here.
func TestMovingShowsWholeFiles(t *testing.T) {
	const moving = "../../../docs/moving.md"
	text, err := os.ReadFile(moving)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := 0, map[string]bool{}
	for _, block := range regexp.MustCompile("(?ms)^```yaml ?([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if block[1] != "" {
			theirs[block[1]] = true
			for loader := yaml.NewDecoder(strings.NewReader(block[2])); ; {
				var document map[string]any
				if err := loader.Decode(&document); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s's file is not YAML: %v", block[1], err)
				}
			}
			continue
		}
		ours++
		config, problems := Parse([]byte(block[2]))
		if len(problems) > 0 || len(config.GetExecute().GetJobs()) < 2 {
			t.Errorf("the file\n%s\ngives\n%s", block[2], Format(Name, problems))
		}
	}
	if ours != 3 || len(theirs) != 3 {
		t.Errorf("%d files of ours, of others %v", ours, theirs)
	}
	for _, anchor := range regexp.MustCompile(`\]\(forge-yml\.md#([a-z_-]+)\)`).FindAllStringSubmatch(string(text), -1) {
		heading := regexp.MustCompile(`(?mi)^#+ ` + strings.ReplaceAll(anchor[1], "-", "[ -]") + `$`)
		if ours, err := os.ReadFile(page); err != nil || !heading.Match(ours) {
			t.Errorf("%s has no heading for #%s, error %v", page, anchor[1], err)
		}
	}
}
