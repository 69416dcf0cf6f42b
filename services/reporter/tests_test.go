package reporter

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestStatusTellsOfTestsWhereThereIsRoom(t *testing.T) {
	on := func(failed, also int64) *schedulerv1.TestSummary {
		return &schedulerv1.TestSummary{Failed: failed, FailsOnBase: &also, BaseRef: "main"}
	}
	long := strings.Repeat("long name ", 30)
	for name, c := range map[string]struct {
		build *schedulerv1.Build
		sum   *schedulerv1.TestSummary
		want  string
	}{
		"nothing reported":    {failedAt("unit"), nil, `Step 2 "unit" failed (exit 1) after 34s`},
		"some also on main":   {failedAt("unit"), on(3, 2), `Step 2 "unit" failed (exit 1) after 34s: 3 tests failed, 2 of them also on main`},
		"all also on main":    {failedAt("unit"), on(3, 3), `Step 2 "unit" failed (exit 1) after 34s: 3 tests failed, all of them also on main`},
		"one also on main":    {failedAt("unit"), on(1, 1), `Step 2 "unit" failed (exit 1) after 34s: 1 test failed, also on main`},
		"none on main":        {failedAt("unit"), on(3, 0), `Step 2 "unit" failed (exit 1) after 34s: 3 tests failed, none of them on main`},
		"main is not known":   {failedAt("unit"), &schedulerv1.TestSummary{Failed: 1, Errored: 1}, `Step 2 "unit" failed (exit 1) after 34s: 2 tests failed`},
		"no failed test":      {failedAt("unit"), &schedulerv1.TestSummary{Passed: 3}, `Step 2 "unit" failed (exit 1) after 34s`},
		"room for less":       {failedAt("unit"), &schedulerv1.TestSummary{Failed: 3, FailsOnBase: new(int64(1)), BaseRef: strings.Repeat("b", 90)}, `Step 2 "unit" failed (exit 1) after 34s: 3 tests failed`},
		"a hostile branch":    {failedAt("unit"), &schedulerv1.TestSummary{Failed: 3, FailsOnBase: new(int64(1)), BaseRef: "a\x00\u202e\nb"}, `Step 2 "unit" failed (exit 1) after 34s: 3 tests failed, 1 of them also on a b`},
		"passed all the same": {&schedulerv1.Build{State: good, StepCount: 1}, &schedulerv1.TestSummary{Failed: 1, FailsOnBase: new(int64(0)), BaseRef: "main"}, "Passed, 1 step: 1 test failed, none of them on main"},
		"flaky":               {&schedulerv1.Build{State: good, StepCount: 1}, &schedulerv1.TestSummary{Passed: 9, Flaky: 2}, "Passed, 1 step: 2 flaky tests"},
		"jobs failed":         {&schedulerv1.Build{State: bad, Reason: schedulerv1.Build_REASON_JOBS, Message: "2 of 9 jobs failed: test, lint"}, on(3, 2), "2 of 9 jobs failed: test, lint; 3 tests failed, 2 of them also on main"},
		"it still runs":       {&schedulerv1.Build{State: running}, on(3, 2), "Running"},
	} {
		report := reportOf(c.build)
		if c.sum != nil {
			report.Tests = &reporterv1.ReportRequest_Tests{Summary: c.sum}
		}
		if got := displayOf(reporterv1.Target_KIND_STATUS, report).description; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	report := reportOf(failedAt(long))
	report.Tests = &reporterv1.ReportRequest_Tests{Summary: on(3, 2)}
	if got := displayOf(reporterv1.Target_KIND_STATUS, report).description; utf8.RuneCountInString(got) > maxDescription || !strings.HasSuffix(got, "(exit 1) after 34s") {
		t.Errorf("without room: %q", got)
	}
}

func failedTest(name, file string, line int32, message string) *schedulerv1.Test {
	return &schedulerv1.Test{Suite: "unit", Class: "shop", Name: name, File: file, Line: line, Message: message, State: schedulerv1.Test_STATE_FAILED}
}

func TestCheckRunShowsFailedTestsAtTheirLines(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		w.adjust = asChecks
		s := w.reporter(open())
		_, err := s.Report(w.t.Context(), &reporterv1.ReportRequest{
			Build: w.failed(), Version: 1, Output: []byte("cart_test.go:12:1: told by its test\nother.go:3:1: told by nothing else\n"),
			Tests: &reporterv1.ReportRequest_Tests{
				Summary: &schedulerv1.TestSummary{Passed: 10, Failed: 2, Skipped: 1, Flaky: 1, Findings: 2, FailsOnBase: new(int64(1)), BaseRef: "main"},
				Failed: []*schedulerv1.Test{
					failedTest("total", "cart_test.go", 12, "got 1\nwant 2"),
					{Name: "elsewhere", State: schedulerv1.Test_STATE_FAILED, Message: "no place", FailsOnBase: true},
					failedTest("outside", "../x.go", 1, "x"),
				},
				Findings: []*schedulerv1.Finding{
					{Level: schedulerv1.Finding_LEVEL_ERROR, Tool: "lint", Rule: "errcheck", File: "cart.go", Line: 3, EndLine: 5, Message: "not checked"},
					{Level: schedulerv1.Finding_LEVEL_NOTE, File: "cart.go", Message: "of the file"},
				},
			},
		})
		w.must(err)
		w.publishAll(s)
		run := w.runs()[0]
		var got []string
		for _, a := range run.Annotations {
			got = append(got, fmt.Sprintf("%s %s:%d-%d %q", a.Level, a.Path, a.StartLine, a.EndLine, a.Message))
		}
		want := []string{
			`failure cart_test.go:12-12 "got 1\nwant 2"`, `failure cart.go:3-5 "not checked"`, `notice cart.go:1-1 "of the file"`, `failure other.go:3-3 "told by nothing else"`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("annotations\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for _, row := range []string{
			"Tests: 10 passed, 2 failed, 1 skipped, 1 flaky, 2 findings",
			`| ✗ | shop total | cart\_test.go:12 | got 1 |`, `| ✗ | elsewhere |  | also on main; no place |`,
		} {
			if !strings.Contains(run.Summary, row) {
				t.Errorf("the summary has no %q:\n%s", row, run.Summary)
			}
		}
	})
}

func TestJobsAnnotateAndTheirBuildDoesNot(t *testing.T) {
	tests := &reporterv1.ReportRequest_Tests{Summary: &schedulerv1.TestSummary{Failed: 1}, Failed: []*schedulerv1.Test{failedTest("total", "a_test.go", 1, "m")}}
	whole := &reporterv1.ReportRequest{Build: &schedulerv1.Build{State: bad, JobCount: 2}, Tests: tests}
	job := &reporterv1.ReportRequest{Build: &schedulerv1.Build{State: bad, PartOf: "b1"}, Tests: tests}
	if got := len(annotations(whole)); got != 0 {
		t.Errorf("a build with jobs has %d annotations", got)
	}
	if got := len(annotations(job)); got != 1 {
		t.Errorf("a job has %d annotations", got)
	}
}

// What tests are called and say may be anybody's.
func TestHostileTestsAreHarmless(t *testing.T) {
	for _, text := range hostileTexts() {
		text = strings.ToValidUTF8(text, "")
		told := &reporterv1.ReportRequest_Tests{Summary: &schedulerv1.TestSummary{Failed: 200, BaseRef: text, FailsOnBase: new(int64(3)), Findings: 200}}
		for range 50 {
			one := failedTest(text, text, 7, text+strings.Repeat(text, 1000/max(len(text), 1)))
			one.Class, one.FailsOnBase = text, true
			told.Failed = append(told.Failed, one, failedTest("t", "fine.go", 3, text))
			told.Findings = append(told.Findings, &schedulerv1.Finding{Tool: text, Rule: text, File: "fine.go", Line: 1 << 30, EndLine: -1, Message: text})
		}
		b := failedAt(text)
		b.Url = "http://forge.example/builds/b1"
		r := &reporterv1.ReportRequest{Build: b, Tests: told}
		harmless(t, "description", displayOf(reporterv1.Target_KIND_STATUS, r).description)
		shown := summary(r)
		if n := utf8.RuneCountInString(shown); n > maxText {
			t.Errorf("a summary of %d characters", n)
		}
		for line := range strings.SplitSeq(shown, "\n") {
			harmless(t, "summary", line)
			if cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); strings.HasPrefix(line, "| ✗ | ") && cells != 5 && cells != 4 {
				t.Errorf("a row of another table: %q", line)
			}
		}
		all := annotations(r)
		if len(all) > maxAnnotations {
			t.Errorf("%d annotations", len(all))
		}
		for _, a := range all {
			harmless(t, "title", a.GetTitle())
			for line := range strings.SplitSeq(a.GetMessage(), "\n") {
				harmless(t, "message", strings.ReplaceAll(line, "\t", ""))
			}
			if a.GetMessage() == "" || a.GetStartLine() < 1 || a.GetEndLine() < a.GetStartLine() || strings.Contains(a.GetPath(), "..") {
				t.Errorf("annotation %v", a)
			}
		}
	}
}
