package wire_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// tested is a repository whose tests write JUnit XML: old fails always, new fails the
// first time that its commit is tested.
func tested(state string) map[string]string {
	return map[string]string{
		".forge.yml": lines(
			"image: busybox",
			"secrets: [TOKEN]",
			"environment: {STATE: '"+state+"'}",
			"execute: [{name: tests, run: sh test.sh}]",
			"push: {branches: [main], execute: [{name: tests, run: sh test.sh}]}",
			`reports: {junit: "out/*.xml", sarif: lint.sarif}`,
		),
		"test.sh": lines(
			"mkdir -p out",
			`echo 'this is no report' >out/other.xml`,
			`sed "s/SECRET/$TOKEN/" results.xml >out/unit.xml`,
			`if [ -e second.xml ] && ! mkdir "$STATE/$FORGE_SHA" 2>/dev/null; then cp second.xml out/unit.xml; fi`,
			`! grep -q '<failure' out/unit.xml`,
		),
		"results.xml":  junit(`<testcase classname="shop" name="adds" time="0.2"/>`, failing("old", 2, "never held")),
		"shop_test.py": "import shop\n\n\ndef test_new():\n    assert new()\n",
	}
}

func junit(cases ...string) string {
	return `<testsuite name="unit">` + strings.Join(cases, "") + "</testsuite>\n"
}

func failing(name string, line int, message string) string {
	return fmt.Sprintf(`<testcase classname="shop" name="%s"><failure message="%s">shop_test.py:%d: AssertionError</failure></testcase>`, name, message, line)
}

// A failing test is shown where it failed, in the status and as an annotation, and what
// main's tests and those of other commits say of it, too.
func TestTestsThatFailAreShownWhereTheyDo(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			const token = "correct-horse-battery-staple"
			state := t.TempDir()
			w := newWorld(t, tested(state))
			w.env = append(w.env, "FORGE_REPORT=both")
			w.deploy(t, d)
			w.awaitServing(t)
			scheduler := w.grpc
			if d.apart {
				scheduler = w.apart["scheduler"]
			}
			verb := func(stdin string, args ...string) string {
				t.Helper()
				out, err := w.fed(t, stdin, append(args, "--grpc-address="+scheduler)...)
				if err != nil {
					t.Fatalf("forge %s: %v\n%s", strings.Join(args, " "), err, out)
				}
				return out
			}
			verb(token, "secrets", "set", "TOKEN", "--for=pull-requests,pushes,tags,deploys", "--repo="+owner+"/"+repo)

			onMain := w.push(t, "main", files("notes", "one"))
			if shown := w.shows(t, onMain, "forge/push", "failure"); !strings.HasSuffix(shown.Description, ": 1 test failed") {
				t.Errorf("main's status says %q", shown.Description)
			}

			change := files("results.xml", junit(failing("old", 2, "never held"), failing("new", 5, "told SECRET")), "second.xml", junit(`<testcase classname="shop" name="new"/>`),
				"lint.sarif", `{"runs":[{"tool":{"driver":{"name":"lint"}},"results":[{"ruleId":"W1","message":{"text":"not good"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"test.sh"},"region":{"startLine":2}}}]}]}]}`)
			number, sha := w.propose(t, "change", change)
			shown := w.shows(t, sha, "forge/test", "failure")
			if !strings.HasSuffix(shown.Description, ": 2 tests failed, 1 of them also on main") {
				t.Errorf("the status says %q", shown.Description)
			}
			run := w.testRun(t, sha, 1, "failure")
			var at []string
			for _, a := range run.Annotations {
				at = append(at, fmt.Sprintf("%s %s:%d %s", a.Level, a.Path, a.StartLine, strings.ReplaceAll(a.Message, "\n", " | ")))
			}
			want := []string{
				"failure shop_test.py:2 never held | shop_test.py:2: AssertionError", "failure shop_test.py:5 told *** | shop_test.py:5: AssertionError", "warning test.sh:2 not good",
			}
			if !slices.Equal(at, want) {
				t.Errorf("annotations\n%s\nwant\n%s", strings.Join(at, "\n"), strings.Join(want, "\n"))
			}
			for _, part := range []string{"Tests: 2 failed, 1 finding", `| ✗ | shop new | shop\_test.py:5 | told \*\*\* |`, `| ✗ | shop old | shop\_test.py:2 | also on main; never held |`} {
				if !strings.Contains(run.Summary, part) {
					t.Errorf("the summary has no %q:\n%s", part, run.Summary)
				}
			}
			page := w.page(t, shown.TargetURL)
			for _, part := range []string{"<code>shop_test.py:5</code>", "also on main", "told ***", "1 of them also on main"} {
				if !strings.Contains(page, part) {
					t.Errorf("the page has no %q:\n%s", part, page)
				}
			}
			if log := w.log(t, shown.TargetURL); !strings.Contains(log, `forge: "out/other.xml" is no report that can be read`) || strings.Contains(log+page+run.Summary, token) {
				t.Errorf("the log says\n%s", log)
			}
			build := filepath.Base(shown.TargetURL)
			if out := verb("", "tests", "failed", build); !strings.HasPrefix(out, "2 tests of 2 failed, 1 of them also on main\n") || !strings.Contains(out, "failed shop old, also on main\n  shop_test.py:2\n") {
				t.Errorf("forge tests failed says\n%s", out)
			}

			// The same commit passes the second time: a test of this pull request is flaky, and none of main's.
			verb("", "builds", "retry", build)
			if shown := w.shows(t, sha, "forge/test", "success"); !strings.HasSuffix(shown.Description, ": 1 flaky test") {
				t.Errorf("the status says %q", shown.Description)
			}
			if out := verb("", "tests", "flaky", owner+"/"+repo, fmt.Sprintf("--pull=%d", number)); !strings.Contains(out, "shop new") || strings.Contains(out, "shop old") {
				t.Errorf("forge tests flaky of the pull request says\n%s", out)
			}
			if out := verb("", "tests", "flaky", owner+"/"+repo); !strings.HasPrefix(out, "no test has") {
				t.Errorf("forge tests flaky says\n%s", out)
			}
			if out := verb("", "tests", "history", owner+"/"+repo, "new"); strings.Count(out, "#1") != 2 {
				t.Errorf("forge tests history says\n%s", out)
			}
			if out := verb("", "tests", "slow", filepath.Base(w.shows(t, onMain, "forge/push", "failure").TargetURL)); !strings.Contains(out, "200ms  shop adds") {
				t.Errorf("forge tests slow says\n%s", out)
			}
		})
	}
}
