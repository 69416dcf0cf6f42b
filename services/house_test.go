// Package services_test holds the house in order: who may import whom, and what stands at the top of the repository.
package services_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const ours = "github.com/forge-ci/forge/"

// rule says what the packages in and below a folder may import of ours. The rule of the innermost folder counts.
type rule struct {
	folder string
	may    []string // folders, in and below
	not    []string // exceptions from may
	tests  []string // what their tests may import besides
}

// Rooms know each other by the contract alone, which is what makes each deployable apart. Their tests fake a sibling by
// serving its contract, so they get no exception either.
func rules() []rule {
	return []rule{
		{folder: "gen", may: []string{"gen"}},
		{folder: "services/kit", may: []string{"services/kit"}},
		{folder: "services/settings", may: []string{"services/settings", "services/kit"}},
		{folder: "services/registration", may: []string{"services/registration", "services/kit"}, tests: []string{"services/githubsim"}},
		{folder: "services/wording", may: []string{"gen"}},
		{folder: "services/githubsim", may: []string{"services/githubsim", "services/kit"}},
		{folder: "services/gateway", may: []string{"services/gateway", "services/wording", "services/kit", "gen"}, tests: []string{"services/githubsim"}},
		{folder: "services/config", may: []string{"services/config", "services/wording", "services/kit", "gen"}, tests: []string{"services/githubsim"}},
		{folder: "services/reporter", may: []string{"services/reporter", "services/wording", "services/kit", "gen"}, tests: []string{"services/githubsim"}},
		{
			folder: "services/scheduler",
			may:    []string{"services/scheduler", "services/wording", "services/kit", "gen"},
			not:    engines(),
			tests:  []string{"services/githubsim"},
		},
		{
			folder: "services/scheduler/engine",
			may:    []string{"services/scheduler/engine", "services/kit", "gen"},
			tests:  []string{"services/forgexec"},
		},
		{folder: "services/scheduler/trigger", may: below()},
		{folder: "services/scheduler/store", may: below("trigger")},
		{folder: "services/scheduler/logs", may: below("store")},
		{folder: "services/scheduler/tests", may: below("trigger", "store")},
		{folder: "services/scheduler/audit", may: below("store")},
		{folder: "services/scheduler/secrets", may: below("trigger", "store", "audit")},
		{folder: "services/scheduler/input", may: below("store", "secrets")},
		{folder: "services/scheduler/registry", may: below("engine", "store", "secrets"), not: engines()},
		{folder: "services/scheduler/token", may: below("store", "audit")},
		{folder: "services/scheduler/content", may: below("trigger", "store", "audit")},
		{folder: "services/scheduler/shell", may: below("store", "audit", "secrets")},
		{folder: "services/scheduler/graph", may: below("store")},
		{folder: "services/scheduler/image/gate", may: below("store")},
		{folder: "services/scheduler/image", may: below("image"), tests: []string{"services/scheduler/store"}},
		{folder: "services/scheduler/environment", may: below("trigger", "store", "graph")},
		{folder: "services/scheduler/concurrency", may: below("trigger", "store")},
		{folder: "services/scheduler/outbox", may: below("store", "logs", "tests")},
		{folder: "services/scheduler/bulletin", may: below("store")},
		{folder: "services/scheduler/attempt", may: below("trigger", "engine", "store", "graph", "logs", "tests", "secrets", "registry", "input", "content", "environment", "concurrency", "shell", "image"), not: engines()},
		{folder: "services/scheduler/plan", may: below("trigger", "store", "audit", "input", "graph", "environment", "concurrency", "attempt")},
		{folder: "services/scheduler/schedule", may: below("trigger", "store", "plan")},
		{folder: "services/scheduler/engines", may: []string{"services/scheduler/engine", "services/kit"}},
		{folder: "services/forgexec", may: []string{"services/forgexec", "services/kit", "gen"}},
		{folder: "services/backup", may: []string{"services/backup", "services/gateway", "services/scheduler", "services/reporter", "services/kit"}, not: engines()},
		{
			folder: "services/wire",
			may: []string{
				"services/wire", "services/backup", "services/gateway", "services/config", "services/scheduler", "services/reporter",
				"services/settings", "services/kit", "gen",
			},
			tests: []string{"services/githubsim", "services/forgexec"},
		},
		{
			folder: "services/doctor",
			may: []string{
				"services/doctor", "services/wire", "services/registration", "services/gateway", "services/config", "services/scheduler", "services/reporter",
				"services/settings", "services/kit", "gen",
			},
			tests: []string{"services/githubsim"},
		},
		{folder: "services/cmd", may: []string{"services", "gen"}, not: []string{"services/cmd"}},
	}
}

// below is what a package of the scheduler may import: what every room may, and
// those packages of the scheduler that lie below it.
func below(packages ...string) []string {
	may := []string{"services/kit", "services/wording", "gen"}
	for _, name := range packages {
		may = append(may, "services/scheduler/"+name)
	}
	return may
}

// engines are what only wire may know.
func engines() []string {
	return []string{
		"services/scheduler/engines", "services/scheduler/engine/docker", "services/scheduler/engine/dockerapi", "services/scheduler/engine/process", "services/scheduler/engine/swarm",
		"services/scheduler/engine/enginetest",
	}
}

// source is what one package imports of ours. All paths go without the prefix that ours have in common.
type source struct {
	pkg            string
	imports, tests []string
}

func TestPackagesImportOnlyWhatTheHouseAllows(t *testing.T) {
	sources := read(t, "..", "gen", "services")
	if len(sources) < 10 {
		t.Fatalf("found %d packages only", len(sources))
	}
	for _, violation := range violations(rules(), sources) {
		t.Error(violation)
	}
}

// The checker itself: each line is a package, what it imports, and the complaint that is due.
func TestForbiddenImportsAreReported(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		pkg, imports, tests string
		want                string
	}{
		{pkg: "gen/forge/event/v1", imports: "gen/forge/config/v1", want: none},
		{pkg: "gen/forge/event/v1", imports: "services/kit/rpc", want: "gen/forge/event/v1 must not import services/kit/rpc"},
		{pkg: "services/kit/rpc", imports: "services/kit/fault", want: none},
		{pkg: "services/kit/rpc", imports: "gen/forge/event/v1", want: "services/kit/rpc must not import gen/forge/event/v1"},
		{pkg: "services/kitchen", imports: none, want: "services/kitchen has no rule"},
		{pkg: "services/gateway", imports: "gen/forge/config/v1", want: none},
		{pkg: "services/gateway", imports: "services/config", want: "services/gateway must not import services/config"},
		{pkg: "services/gateway/web", imports: "services/gateway", want: none},
		{pkg: "services/gateway", tests: "services/githubsim", want: none},
		{pkg: "services/gateway", tests: "services/config", want: "services/gateway must not import services/config in its tests"},
		{pkg: "services/config", imports: "services/githubsim", want: "services/config must not import services/githubsim"},
		{pkg: "services/scheduler", imports: "services/scheduler/queue", want: none},
		{pkg: "services/scheduler", imports: "services/scheduler/engine/process", want: "services/scheduler must not import services/scheduler/engine/process"},
		{pkg: "services/scheduler", imports: "services/scheduler/engine", want: none},
		{pkg: "services/scheduler", imports: "services/scheduler/engines", want: "services/scheduler must not import services/scheduler/engines"},
		{pkg: "services/scheduler/trigger", imports: "services/wording", want: none},
		{pkg: "services/scheduler/trigger", imports: "services/scheduler/store", want: "services/scheduler/trigger must not import services/scheduler/store"},
		{pkg: "services/scheduler/store", imports: "services/scheduler/trigger", want: none},
		{pkg: "services/scheduler/store", imports: "services/scheduler/logs", want: "services/scheduler/store must not import services/scheduler/logs"},
		{pkg: "services/scheduler/logs", imports: "services/scheduler/attempt", want: "services/scheduler/logs must not import services/scheduler/attempt"},
		{pkg: "services/scheduler/secrets", imports: "services/scheduler/environment", want: "services/scheduler/secrets must not import services/scheduler/environment"},
		{pkg: "services/scheduler/environment", imports: "services/scheduler/attempt", want: "services/scheduler/environment must not import services/scheduler/attempt"},
		{pkg: "services/scheduler/graph", imports: "services/scheduler/attempt", want: "services/scheduler/graph must not import services/scheduler/attempt"},
		{pkg: "services/scheduler/outbox", imports: "services/scheduler/logs", want: none},
		{pkg: "services/scheduler/tests", imports: "services/scheduler/store", want: none},
		{pkg: "services/scheduler/tests", imports: "services/scheduler/logs", want: "services/scheduler/tests must not import services/scheduler/logs"},
		{pkg: "services/scheduler/outbox", imports: "services/scheduler/plan", want: "services/scheduler/outbox must not import services/scheduler/plan"},
		{pkg: "services/scheduler/attempt", imports: "services/scheduler/engine", want: none},
		{pkg: "services/scheduler/attempt", imports: "services/scheduler/engine/docker", want: "services/scheduler/attempt must not import services/scheduler/engine/docker"},
		{pkg: "services/scheduler/attempt", imports: "services/scheduler/plan", want: "services/scheduler/attempt must not import services/scheduler/plan"},
		{pkg: "services/scheduler/plan", imports: "services/scheduler/attempt", want: none},
		{pkg: "services/scheduler/plan", imports: "services/scheduler", want: "services/scheduler/plan must not import services/scheduler"},
		{pkg: "services/scheduler/engine/docker", imports: "services/scheduler/engine", want: none},
		{pkg: "services/scheduler/engine/docker", imports: "services/scheduler", want: "services/scheduler/engine/docker must not import services/scheduler"},
		{pkg: "services/scheduler/engines", imports: "services/scheduler/engine/docker", want: none},
		{pkg: "services/scheduler/engine/docker", imports: "services/reporter", want: "services/scheduler/engine/docker must not import services/reporter"},
		{pkg: "services/forgexec", imports: "services/scheduler", want: "services/forgexec must not import services/scheduler"},
		{pkg: "services/wording", imports: "gen/forge/event/v1", want: none},
		{pkg: "services/wording", imports: "services/kit/fault", want: "services/wording must not import services/kit/fault"},
		{pkg: "services/reporter", imports: "services/wording", want: none},
		{pkg: "services/githubsim", imports: "gen/forge/event/v1", want: "services/githubsim must not import gen/forge/event/v1"},
		{pkg: "services/wire", imports: "services/scheduler/engine/process", want: none},
		{pkg: "services/wire", imports: "services/cmd/forge", want: "services/wire must not import services/cmd/forge"},
		{pkg: "services/cmd/forge", imports: "services/githubsim", want: none},
		{pkg: "services/cmd/forge", imports: "services/cmd/gateway", want: "services/cmd/forge must not import services/cmd/gateway"},
	} {
		got := violations(rules(), []source{{c.pkg, strings.Fields(c.imports), strings.Fields(c.tests)}})
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s importing %q, its tests %q:\n got %q\nwant %q", c.pkg, c.imports, c.tests, got, c.want)
		}
	}
}

func TestNothingElseStandsAtTheTop(t *testing.T) {
	allowed := []string{
		"CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "buf.gen.yaml", "buf.yaml", "go.work", "go.work.sum",
		"deploy", "docs", "gen", "proto", "services",
		"forge-data", "forge.yaml", "third_party", // made here, ignored by git
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) {
			t.Errorf("%s at the top of the repository: find it a room, or make one in design and in this list", name)
		}
	}
}

// violations says what each package must not import, in the order of sources.
func violations(rules []rule, sources []source) []string {
	var found []string
	for _, s := range sources {
		r, ok := innermost(rules, s.pkg)
		if !ok {
			found = append(found, s.pkg+" has no rule")
			continue
		}
		check := func(imports, may []string, where string) {
			for _, imported := range imports {
				if !within(imported, may) || within(imported, r.not) {
					found = append(found, fmt.Sprintf("%s must not import %s%s", s.pkg, imported, where))
				}
			}
		}
		check(s.imports, r.may, "")
		check(s.tests, slices.Concat(r.may, r.tests), " in its tests")
	}
	return found
}

func innermost(rules []rule, pkg string) (rule, bool) {
	var best rule
	for _, r := range rules {
		if within(pkg, []string{r.folder}) && len(r.folder) > len(best.folder) {
			best = r
		}
	}
	return best, best.folder != ""
}

func within(pkg string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return pkg == folder || strings.HasPrefix(pkg, folder+"/")
	})
}

// read parses the imports of every file below the folders, those behind build tags too. Unlike the output of `go list`,
// files that a test opens are known to go test, which so runs it again when one has changed.
func read(t *testing.T, root string, folders ...string) []source {
	t.Helper()
	found := map[string]*source{}
	visit := func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "testdata" {
			return fs.SkipDir
		}
		folder := path.Dir(name)
		if path.Ext(name) != ".go" || slices.Contains(folders, folder) { // this test stands in no room
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("imports of %s: %w", name, err)
		}
		if found[folder] == nil {
			found[folder] = &source{pkg: folder}
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("imports of %s: %w", name, err)
			}
			imported, isOurs := strings.CutPrefix(imported, ours)
			switch {
			case !isOurs:
			case strings.HasSuffix(name, "_test.go"):
				found[folder].tests = append(found[folder].tests, imported)
			default:
				found[folder].imports = append(found[folder].imports, imported)
			}
		}
		return nil
	}
	for _, folder := range folders {
		if err := fs.WalkDir(os.DirFS(root), folder, visit); err != nil {
			t.Fatal(err)
		}
	}
	var sources []source
	for _, pkg := range slices.Sorted(maps.Keys(found)) {
		sources = append(sources, *found[pkg])
	}
	return sources
}
