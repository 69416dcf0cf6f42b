package gateway

import (
	"strings"
	"testing"

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
