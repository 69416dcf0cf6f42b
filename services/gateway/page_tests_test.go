package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestBuildPageShowsTestsThatFailedWithTheirPlace(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	w.rooms.tests.summary = &schedulerv1.TestSummary{Passed: 10, Failed: 60, Errored: 1, Skipped: 2, Flaky: 1, Findings: 30, FailsOnBase: new(int64(2)), BaseRef: "main"}
	w.rooms.tests.tests = []*schedulerv1.Test{
		{Suite: "unit", Class: "shop.Cart", Name: "total", File: "cart_test.go", Line: 12, State: schedulerv1.Test_STATE_FAILED, Message: "got 1\nwant 2", FailsOnBase: true, Flaky: true},
		{Suite: "unit", Name: "crash", State: schedulerv1.Test_STATE_ERRORED, Job: "test (1.26)"},
	}
	w.rooms.tests.findings = []*schedulerv1.Finding{{Level: schedulerv1.Finding_LEVEL_WARNING, Tool: "lint", Rule: "errcheck", File: "a.go", Line: 3, Message: "not checked"}}
	_, body := w.get("/builds/b1")
	_, section, found := strings.Cut(body, `<section id="tests"`)
	section, _, ended := strings.Cut(section, "</section>")
	if !found || !ended {
		t.Fatal(body)
	}
	kittest.Golden(t, "tests.html", []byte(section+"\n"))

	// Without an answer the page has all else.
	w.rooms.tests.err = fault.New(fault.Unavailable, "away")
	if code, body := w.get("/builds/b1"); code != 200 || strings.Contains(body, "cart_test.go") || !strings.Contains(body, "unit tests") {
		t.Errorf("%d %s", code, body)
	}
}

func TestNothingInATestBecomesMarkup(t *testing.T) {
	const evil = `</pre><script>alert(1)</script><img src=x onerror=alert(1)>"'`
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	w.rooms.tests.summary = &schedulerv1.TestSummary{Failed: 1, Findings: 1, FailsOnBase: new(int64(1)), BaseRef: evil}
	w.rooms.tests.tests = []*schedulerv1.Test{{Suite: evil, Class: evil, Name: evil, File: evil, Job: evil, Message: evil, State: schedulerv1.Test_STATE_FAILED}}
	w.rooms.tests.findings = []*schedulerv1.Finding{{Tool: evil, Rule: evil, File: evil, Job: evil, Message: evil}}
	_, body := w.get("/builds/b1")
	if strings.Contains(body, "<script>") || strings.Contains(body, "<img") || strings.Count(body, "&lt;script&gt;") < 11 {
		t.Errorf("something got through, or is not shown:\n%s", body)
	}
}

func TestPageOfTestsListsWhatIsAskedFor(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build = failedBuild()
	w.rooms.tests.summary = &schedulerv1.TestSummary{Passed: 300, Failed: 1, Findings: 3, FailsOnBase: new(int64(0)), BaseRef: "main", LeftOut: 9}
	w.rooms.tests.tests = []*schedulerv1.Test{{Class: "shop.Cart", Name: "total", File: "a/cart test.go", Line: 12, State: schedulerv1.Test_STATE_FAILED, Duration: durationpb.New(1234 * time.Millisecond)}}
	for n := range 300 {
		w.rooms.tests.tests = append(w.rooms.tests.tests, &schedulerv1.Test{Name: fmt.Sprintf("t%d", n), State: schedulerv1.Test_STATE_PASSED})
	}
	w.rooms.tests.findings = []*schedulerv1.Finding{{Rule: "errcheck", File: "../../evil", Line: 1}}
	for path, want := range map[string][]string{
		"/builds/b1/tests": {
			"shop.Cart", ">t198<", `<a href="?from=more%3F">more</a>`, "9 results were too many", "1.2 s", `<span class="badge">new</span>`,
			`<a href="https://github.com/acme/web/blob/3f2a91c0ffee/a/cart%20test.go#L12" rel="noreferrer"><code>a/cart test.go:12</code></a>`,
		},
		"/builds/b1/tests?state=failed":   {"shop.Cart", `<a href="/builds/b1/tests?state=failed" aria-current="true">`},
		"/builds/b1/tests?state=skipped":  {"There are none."},
		"/builds/b1/tests?order=slowest":  {`?from=more%3F&amp;order=slowest">`},
		"/builds/b1/findings":             {"errcheck", "· <code>../../evil:1</code>"},
		"/builds/b1/tests?state=<script>": {"shop.Cart"},
	} {
		code, body := w.get(path)
		for _, text := range want {
			if code != 200 || !strings.Contains(body, text) || strings.Contains(body, "<script>") {
				t.Errorf("%s: %d, no %s in\n%s", path, code, text, body)
			}
		}
		if strings.Contains(path, "state=failed") && strings.Contains(body, ">t0<") {
			t.Errorf("%s shows what passed", path)
		}
	}
	w.rooms.tests.summary, w.rooms.tests.tests = nil, nil
	if _, body := w.get("/builds/b1/tests"); !strings.Contains(body, "this build has reported no tests") {
		t.Error(body)
	}
	if code, _ := w.get("/builds/b2/tests"); code != 404 {
		t.Errorf("of a build that is not there: %d", code)
	}
}
