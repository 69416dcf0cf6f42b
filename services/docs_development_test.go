package services_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pagesForDevelopers are those that name files, by their paths from the top.
func pagesForDevelopers() []string { return []string{"CONTRIBUTING.md", "docs/development.md"} }

// tree is the repository as far as pages speak of it.
type tree struct {
	files     map[string]bool // files and folders, by path and by name
	functions map[string]bool // by name, and by "path name"
	makefile  string
	variables map[string]bool // that tests or their scripts read
}

// Whoever renames a file, a function, a target or a variable finds the pages that name it.
func TestPagesForDevelopersNameWhatIsThere(t *testing.T) {
	there := readTree(t)
	for _, page := range pagesForDevelopers() {
		for _, missing := range there.missing(page, content(t, page)) {
			t.Errorf("%s names %s, which is not there", page, missing)
		}
	}
}

// The checker itself: each is a page, and what of it is not there.
func TestWhatPagesNameAndIsNotThereIsFound(t *testing.T) {
	there := readTree(t)
	for _, c := range []struct{ page, missing string }{
		{"`services/kit/due` and `services/kit/due/due.go`, as in `LICENSE` or `doc.go`; `.ci/run`, `.bin/forge`", ""},
		{"`services/kit/do`", "services/kit/do"},
		{"`services/kit/due/do.go`", "services/kit/due/do.go"},
		{"`never.go`", "never.go"},
		{"`.ci/never`", ".ci/never"},
		{"owner/name, `/forge retest`, `proto/forge/<room>/v1`", ""},
		{"[a](../README.md#look-inside), [b](https://never.example/x) and [c](never.md)", "never.md"},
		{"`Run()` of `services/kit/due/due.go`", ""},
		{"`Walk()` of `services/kit/due/due.go`", "Walk()"},
		{"`Run()` of a file\n\nin another paragraph: `services/kit/due/due.go`", "Run()"},
		{"| `Run()` |\n| `services/kit/due/due.go` |", "Run()"},
		{"- `Run()`\n- `services/kit/due/due.go`", "Run()"},
		{"`make verify lint test`, `make test ROOM=kit DB=sqlite # one`, `make` alone, and make never", ""},
		{"`make verify never`", "make never"},
		{"```sh\nA=1 make test NEVER=kit # make no other\n```", "make NEVER="},
		{"```sh\nmake test PKG=./services/never RUN=TestNever\n```", "./services/never; TestNever"},
		{"```sh\nmake test ROOM=never\n```", "ROOM=never"},
		{"```sh\ngo test ./services/kit/due\n```", ""},
		{"`TEST_SEED`, TEST_RUNS and `UPDATE=1`", ""},
		{"TEST_NEVER=1", "TEST_NEVER"},
		{"`TestPagesForDevelopersNameWhatIsThere`", ""},
		{"`TestNever`", "TestNever"},
	} {
		if got := strings.Join(there.missing("docs/a-page.md", c.page), "; "); got != c.missing {
			t.Errorf("of %q is missing %q, want %q", c.page, got, c.missing)
		}
	}
}

// What has no line on the page is found by nobody who reads it.
func TestEveryFolderHasItsLine(t *testing.T) {
	page := content(t, "docs/development.md")
	for _, folder := range []string{"services", "services/scheduler"} {
		entries, err := os.ReadDir(filepath.Join("..", folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			name := folder + "/" + entry.Name()
			if entry.IsDir() && entry.Name() != "testdata" && !strings.Contains(page, "\n| `"+name+"` |") {
				t.Errorf("docs/development.md has no line for %s", name)
			}
		}
	}
}

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readTree(t *testing.T) tree {
	t.Helper()
	there := tree{files: map[string]bool{}, functions: map[string]bool{}, variables: map[string]bool{}, makefile: content(t, "Makefile")}
	function := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)[(\[]`)
	variable := regexp.MustCompile(`(?:Getenv\("|\$\{?)(TEST_[A-Z_]+|UPDATE)\b`)
	read := func(name, prefix string, compiled *regexp.Regexp, into map[string]bool) {
		for _, match := range compiled.FindAllStringSubmatch(content(t, name), -1) {
			into[prefix+match[1]] = true
		}
	}
	err := fs.WalkDir(os.DirFS(".."), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", ".bin", "third_party", "forge-data"}, name):
			return fs.SkipDir
		}
		there.files[name], there.files[entry.Name()] = true, true
		switch {
		case entry.IsDir() || strings.HasPrefix(name, "gen/"):
		case path.Ext(name) == ".go":
			read(name, name+" ", function, there.functions)
			read(name, "", function, there.functions)
			read(name, "", variable, there.variables)
		case path.Dir(name) == ".ci":
			read(name, "", variable, there.variables)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	linkTarget = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	testNamed  = regexp.MustCompile(`\bTest[A-Z]\w*`)
	variables  = regexp.MustCompile(`\bTEST_[A-Z_]+|\bUPDATE\b`)
	// A path has a slash inside, or it is a name with the ending of a file that we have.
	pathNamed   = regexp.MustCompile(`^(?:\./)?(\.?[\w-]+(?:[./][\w.-]+)*/[\w.-]+|[\w-]+\.(?:go|md|proto|json))$`)
	makeCommand = regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*make\b(.*)$`)
	assignment  = regexp.MustCompile(`^([A-Z]+)=(.*)$`)
	targetNamed = regexp.MustCompile(`^[a-z]+$`)
	funcNamed   = regexp.MustCompile(`^(\w+)\(\)$`)
	// A row of a table and an item of a list are blocks of their own.
	blockEnd = regexp.MustCompile(`\n(?:\n|- |\| )`)
)

// missing are the files, functions, commands and variables that a page names and that are not there.
func (there tree) missing(page, text string) []string {
	var found []string
	demand := func(ok bool, name string) {
		if !ok && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, link := range linkTarget.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(link[1], "://") {
			demand(there.files[path.Join(path.Dir(page), link[1])], link[1])
		}
	}
	for n, part := range strings.Split(text, "```") {
		if n%2 == 1 { // code, of which each line is a command
			for line := range strings.SplitSeq(part, "\n") {
				there.command(line, demand)
			}
			continue
		}
		for _, block := range blockEnd.Split(part, -1) {
			there.prose(block, demand)
		}
	}
	for _, name := range variables.FindAllString(text, -1) {
		demand(there.variables[name], name)
	}
	return found
}

// prose demands what stands in code of a paragraph. A function is of one of the paragraph's files.
func (there tree) prose(block string, demand func(ok bool, name string)) {
	var files, functions []string
	for _, span := range codeSpan.FindAllStringSubmatch(block, -1) {
		there.command(span[1], demand)
		if match := funcNamed.FindStringSubmatch(span[1]); match != nil {
			functions = append(functions, match[1])
		} else {
			files = append(files, span[1])
		}
		if testNamed.FindString(span[1]) == span[1] {
			demand(there.functions[span[1]], span[1])
		}
	}
	for _, name := range functions {
		demand(slices.ContainsFunc(files, func(file string) bool { return there.functions[file+" "+name] }), name+"()")
	}
}

// command demands what a command, or a span of one word, names.
func (there tree) command(line string, demand func(ok bool, name string)) {
	line, _, _ = strings.Cut(line, " #")
	line = strings.TrimSpace(line)
	for word := range strings.FieldsSeq(line) {
		value := word[strings.LastIndex(word, "=")+1:]
		if pathNamed.MatchString(value) && !strings.HasPrefix(value, ".bin/") && !strings.HasPrefix(word, "ROOM=") {
			demand(there.files[strings.TrimPrefix(value, "./")], value)
		}
	}
	match := makeCommand.FindStringSubmatch(line)
	if match == nil {
		return
	}
	for word := range strings.FieldsSeq(match[1]) {
		set := assignment.FindStringSubmatch(word)
		switch {
		case set == nil && targetNamed.MatchString(word):
			demand(strings.Contains(there.makefile, "\n"+word+":"), "make "+word)
		case set == nil: // the rest of a quoted value
		case !strings.Contains(there.makefile, "$("+set[1]+")"):
			demand(false, "make "+set[1]+"=")
		case set[1] == "ROOM":
			demand(there.files["services/"+set[2]], word)
		case set[1] == "RUN":
			demand(slices.ContainsFunc(there.tests(), func(name string) bool { return strings.HasPrefix(name, set[2]) }), set[2])
		}
	}
}

func (there tree) tests() []string {
	var names []string
	for name := range there.functions {
		if strings.HasPrefix(name, "Test") {
			names = append(names, name)
		}
	}
	return names
}
