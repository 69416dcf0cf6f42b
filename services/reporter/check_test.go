package reporter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func asChecks(d *Deps) { d.Report = "checks" }

// reportOutput reports a build with what it printed.
func (w *world) reportOutput(s *Service, version int64, b *schedulerv1.Build, output string) {
	w.t.Helper()
	_, err := s.Report(w.t.Context(), &reporterv1.ReportRequest{Build: b, Version: version, Output: []byte(output)})
	w.must(err)
}

func (w *world) runs() []githubsim.CheckRun {
	w.t.Helper()
	runs, err := w.sim.CheckRuns("octo", "shop", w.sha)
	w.must(err)
	return runs
}

// failing is a build at the world's commit that failed.
func (w *world) failed() *schedulerv1.Build {
	b, as := like(w.build(bad), bad), failedAt("unit tests")
	b.Steps, b.Reason, b.StepCount = as.GetSteps(), as.GetReason(), 3
	return b
}

func TestCheckRunFollowsItsBuildInThreeCalls(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		w.adjust = asChecks
		s := w.reporter(open())
		before := len(w.sim.Calls())
		w.report(s, 1, w.build(queued))
		w.publishAll(s)
		w.report(s, 2, w.build(running))
		w.publishAll(s)
		if run := w.runs()[0]; run.Status != "in_progress" || len(run.Actions) != 1 || run.Actions[0].Identifier != "cancel" {
			t.Errorf("while it runs: %+v", run)
		}
		w.reportOutput(s, 3, w.failed(), "--- FAIL: TestCart\nshop/cart.go:12:5: undefined: price\nFAIL\n")
		w.publishAll(s)

		runs := w.runs()
		if len(runs) != 1 {
			t.Fatalf("%d check runs", len(runs))
		}
		run := runs[0]
		if run.Name != "Forge / test" || run.ExternalID != "b1" || run.Conclusion != "failure" || run.DetailsURL != "http://forge.example/builds/b1" ||
			run.Title != `Step 2 "unit tests" failed (exit 1) after 34s` || !strings.Contains(run.Text, "undefined: price\nFAIL\n") {
			t.Errorf("check run %+v", run)
		}
		if len(run.Actions) != 1 || run.Actions[0].Identifier != "rerun" {
			t.Errorf("buttons %+v", run.Actions)
		}
		if len(run.Annotations) != 1 || run.Annotations[0].Path != "shop/cart.go" || run.Annotations[0].StartLine != 12 || *run.Annotations[0].StartColumn != 5 {
			t.Errorf("annotations %+v", run.Annotations)
		}
		if calls := w.changes(before); calls != 3 {
			t.Errorf("%d calls, want 3", calls)
		}
	})
}

func TestBothAreTold(t *testing.T) {
	w := newWorld(t)
	w.adjust = func(d *Deps) { d.Report = "both" }
	s := w.reporter(sqlite(t))
	w.report(s, 1, like(w.build(good), good))
	w.publishAll(s)
	w.wantHistory("success: Passed, 1 step")
	if runs := w.runs(); len(runs) != 1 || runs[0].Conclusion != "success" {
		t.Errorf("check runs %+v", runs)
	}
}

// What was begun as a status is told to its end as one.
func TestAnotherSettingLeavesNoStatusPending(t *testing.T) {
	w := newWorld(t)
	db := sqlite(t)
	s := w.reporter(db)
	w.report(s, 1, w.build(running))
	w.publishAll(s)
	w.adjust = asChecks
	s = w.reporter(db)
	w.report(s, 2, like(w.build(good), good))
	w.publishAll(s)
	w.wantHistory("pending: Running", "success: Passed, 1 step")
}

func TestCheckRunIsMadeOnceAndAnnotatedOnce(t *testing.T) {
	for name, trouble := range map[string]githubsim.Misbehaviour{
		"answer to the first lost": {Route: "POST /repos/{owner}/{repo}/check-runs", Cut: true, CarriedOut: true, Times: 1},
		"first lost":               {Route: "POST /repos/{owner}/{repo}/check-runs", Cut: true, Times: 1},
		"first refused":            {Route: "POST /repos/{owner}/{repo}/check-runs", Status: 403, RetryAfter: time.Second, Times: 1},
		"answer to the last lost":  {Route: "PATCH", Cut: true, CarriedOut: true, Times: 1},
		"last lost":                {Route: "PATCH", Status: 502, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.adjust = asChecks
			s := w.reporter(sqlite(t))
			w.sim.Misbehave(trouble)
			w.report(s, 1, w.build(queued))
			w.publishAll(s)
			w.reportOutput(s, 2, w.failed(), "main.go:1:1: oops")
			w.publishAll(s)
			if runs := w.runs(); len(runs) != 1 || runs[0].Conclusion != "failure" || len(runs[0].Annotations) != 1 {
				t.Errorf("check runs %+v", runs)
			}
		})
	}
}

// Two pull requests have one head commit, and each a build: the commit status shows
// one of them, and the check run of the other has a name of its own.
func TestBuildThatIsNotShownHasACheckRunOfItsOwn(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		w.adjust = func(d *Deps) { d.Report = "both" }
		s := w.reporter(open())
		mine, other := w.build(running), w.build(good)
		mine.PullRequest, other.PullRequest, other.Id, other.StepCount = 7, 8, "b2", 1
		w.report(s, 1, mine)
		w.publishAll(s)
		hand(w, s, &reporterv1.ReportRequest{Version: 3, Build: other})
		hand(w, s, &reporterv1.ReportRequest{Version: 2, Build: mine}) // late
		hand(w, s, &reporterv1.ReportRequest{Version: 4, Build: mine, Standing: outranked})
		w.publishAll(s)
		names := func() (all []string) {
			for _, run := range w.runs() {
				all = append(all, strings.TrimSpace(run.Name+": "+run.Status+" "+run.Conclusion+", "+run.Title))
			}
			return all
		}
		kittest.Want(t, names(), []string{"Forge / test (#7): in_progress , #7: Running", "Forge / test: completed success, Passed, 1 step"})
		wantLast(w, "success: Passed, 1 step")
		mine = w.build(bad)
		mine.PullRequest = 7
		hand(w, s, &reporterv1.ReportRequest{Version: 5, Build: mine}) // it counts more, having failed
		hand(w, s, &reporterv1.ReportRequest{Version: 6, Build: other, Standing: outranked})
		w.publishAll(s)
		kittest.Want(t, names(), []string{"Forge / test: completed failure, Failed", "Forge / test (#8): completed success, #8: Passed, 1 step"})
		wantLast(w, "failure: Failed")
	})
}

func hand(w *world, s *Service, r *reporterv1.ReportRequest) {
	w.t.Helper()
	_, err := s.Report(w.t.Context(), r)
	w.must(err)
}

// wantLast holds the status that was set last against what it should be.
func wantLast(w *world, want string) {
	w.t.Helper()
	history := w.history()
	kittest.Want(w.t, history[len(history)-1], want)
}

func TestEachStateOfABuildIsACheckThatGitHubTakes(t *testing.T) {
	for number := range schedulerv1.Build_State_name {
		state := schedulerv1.Build_State(number)
		if state == schedulerv1.Build_STATE_UNSPECIFIED {
			continue
		}
		w := newWorld(t)
		w.adjust = asChecks
		s := w.reporter(sqlite(t))
		w.report(s, 1, like(w.build(state), state))
		w.publishAll(s)
		if run := w.runs()[0]; run.Status != "completed" && views[state].status != statePending || len(run.Actions) == 0 {
			t.Errorf("%v: %+v", state, run)
		}
	}
}

func TestConclusions(t *testing.T) {
	for _, c := range []struct {
		state  schedulerv1.Build_State
		reason schedulerv1.Build_Reason
		check  string
	}{
		{schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_REASON_NEEDS_APPROVAL, "action_required"},
		{schedulerv1.Build_STATE_PASSED, 0, "success"},
		{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_STEP_FAILED, "failure"},
		{schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST, "failure"},
		{schedulerv1.Build_STATE_TIMED_OUT, 0, "timed_out"},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_SUPERSEDED, "cancelled"},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_NO_MATCHING_PATHS, "skipped"},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_SKIP_ASKED, "skipped"},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_CONDITION, "skipped"},
		{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_NEED_FAILED, "cancelled"},
		{schedulerv1.Build_STATE_FAILED, schedulerv1.Build_REASON_JOBS, "failure"},
	} {
		b := &schedulerv1.Build{State: c.state, Reason: c.reason}
		run := newCheckRun(&reporterv1.ReportRequest{Build: b}, displayOf(reporterv1.Target_KIND_CHECK_RUN, reportOf(b)))
		if run.Conclusion != c.check || run.Status != stateCompleted {
			t.Errorf("%v, %v: %s %s, want %s", c.state, c.reason, run.Status, run.Conclusion, c.check)
		}
	}
}

func TestButtonsAndNamesOfJobs(t *testing.T) {
	for _, c := range []struct {
		build *schedulerv1.Build
		want  string
	}{
		{&schedulerv1.Build{Context: "forge/deploy-staging", State: running}, "Forge / deploy staging: Cancel"},
		{&schedulerv1.Build{Context: "forge/test", State: bad, JobCount: 3}, "Forge / test: Run failed again, Run again"},
		{&schedulerv1.Build{Context: "forge/test", State: good, JobCount: 3}, "Forge / test: Run again"},
		{&schedulerv1.Build{Context: "forge/test/unit-tests (1.26)", State: bad, PartOf: "b1"}, "Forge / test / unit-tests (1.26): Run again"},
		{&schedulerv1.Build{Context: "forge/deploy-staging/web", State: bad, PartOf: "b1", Environment: "staging"}, "Forge / deploy staging / web: "},
	} {
		run := newCheckRun(&reporterv1.ReportRequest{Build: c.build}, displayOf(reporterv1.Target_KIND_CHECK_RUN, reportOf(c.build)))
		var labels []string
		for _, action := range run.Actions {
			labels = append(labels, action.Label)
		}
		kittest.Want(t, run.Name+": "+strings.Join(labels, ", "), c.want)
	}
}

func TestPagesOfCheckRuns(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	page := func(name string, steps int, message, output string, reason schedulerv1.Build_Reason) *reporterv1.ReportRequest {
		b := &schedulerv1.Build{
			Id: "b1", Context: "forge/test", State: bad, Reason: reason, Message: message, Url: "http://forge.example/builds/b1",
			StartTime: timestamppb.New(begin), EndTime: timestamppb.New(begin.Add(72 * time.Second)),
		}
		for i := range steps {
			b.Steps = append(b.Steps, &schedulerv1.Step{
				Number: int32(i + 1), Name: name, State: schedulerv1.Step_State(2 + i%5),
				StartTime: timestamppb.New(begin), EndTime: timestamppb.New(begin.Add(time.Duration(i) * time.Second)),
			})
		}
		return &reporterv1.ReportRequest{Build: b, Output: []byte(output)}
	}
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "pkg/file%d.go:%d:1: line %d\n", i, i+1, i)
	}
	mistyped := page("", 0, `.forge.yml:7:3: unknown key "exceute", did you mean "execute"?`, "", schedulerv1.Build_REASON_CONFIG_INVALID)
	mistyped.Build.ConfigProblems = []*configv1.ConfigInvalid_Problem{
		{Line: 7, Column: 3, Message: `unknown key "exceute", did you mean "execute"?`},
		{Line: 9, Column: 12, Message: "expected a list,\nnot " + strings.Repeat("測試", 600)}, //nolint:gosmopolitan // the point of it
	}
	ofJobs := page("", 0, "1 of 3 jobs failed: test (1.26, postgres:17)", "", schedulerv1.Build_REASON_JOBS)
	for n, state := range []schedulerv1.Build_State{good, bad, schedulerv1.Build_STATE_CANCELLED} {
		ofJobs.Build.Jobs = append(ofJobs.Build.Jobs, &schedulerv1.Job{
			Title: []string{"lint", "test (1.26, postgres:17)", "package | @octocat"}[n], State: state, Url: fmt.Sprintf("http://forge.example/builds/b1.%d", n+1),
			StartTime: timestamppb.New(begin), EndTime: timestamppb.New(begin.Add(time.Minute)),
			Message: []string{"", `step 1 "go test" ended with exit code 1`, "not run: needs test, which failed"}[n],
		})
	}
	var out bytes.Buffer
	for _, r := range []*reporterv1.ReportRequest{
		mistyped, ofJobs,
		page("unit tests", 5, "", "ok\n\x1b[31mFAIL\x1b[0m cart\r\n 10%\r 50%\r100%\n", schedulerv1.Build_REASON_STEP_FAILED),
		page("тесты | 測試 👨\u200d👩\u200d👧\u200d👦 @octocat #1 <b>`x`</b> [a](http://b)", 2, "", "```\nfence\n````\n", schedulerv1.Build_REASON_STEP_FAILED), //nolint:gosmopolitan // the point of it
		page(strings.Repeat("a rather long name of a step ", 9), 120, "", many.String(), schedulerv1.Build_REASON_STEP_FAILED),
		page("", 0, `.forge.yml:7:3: unknown key "exceute", did you mean "execute"?`, "", schedulerv1.Build_REASON_CONFIG_INVALID),
		page("x", 1, strings.Repeat("測試 ", 900), strings.Repeat("é", maxText+9), schedulerv1.Build_REASON_OUT_OF_MEMORY), //nolint:gosmopolitan // as above
	} {
		o := output(r, "title")
		for _, text := range []string{o.GetSummary(), o.GetText()} {
			if n := utf8.RuneCountInString(text); n > maxText || !utf8.ValidString(text) {
				t.Errorf("%d characters", n)
			}
			if utf8.RuneCountInString(text) > 12_000 {
				text = fmt.Sprintf("(%d characters)", utf8.RuneCountInString(text))
			}
			fmt.Fprintf(&out, "%s\n-----\n", text)
		}
		for _, a := range o.Annotations {
			fmt.Fprintf(&out, "%s:%d:%d %s %s\n", a.GetPath(), a.GetStartLine(), a.GetStartColumn(), a.GetAnnotationLevel(), a.GetMessage())
		}
		fmt.Fprintf(&out, "=====\n")
	}
	kittest.Golden(t, "checks", out.Bytes())
}

func TestOnlyWhatNamesAFileOfTheRepositoryIsAnnotated(t *testing.T) {
	for line, want := range map[string]string{
		"main.go:3:14: oops":                    "main.go 3 14 oops",
		"  ./shop/cart.ts:3:14: oops":           "shop/cart.ts 3 14 oops",
		"a/../b.go:1:1: x":                      "b.go 1 1 x",
		"測試.go:1:2: ошибка":                     "測試.go 1 2 ошибка", //nolint:gosmopolitan // the point of it
		"/etc/passwd:1:1: x":                    "",
		"../up.go:1:1: x":                       "",
		`C:\x.go:1:1: x`:                        "",
		"main.go:0:1: x":                        "",
		"main.go:1:0: x":                        "",
		"main.go:12: no column":                 "",
		"12:30:45: a time":                      "",
		"localhost:80:80: x":                    "",
		"main.go:9999999:1: x":                  "",
		strings.Repeat("a", 300) + ".go:1:1: x": "",
		"main.go:1:1:":                          "",
	} {
		got := ""
		if a := annotation(line); a != nil {
			got = fmt.Sprintf("%s %d %d %s", a.GetPath(), a.GetStartLine(), a.GetStartColumn(), a.GetMessage())
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func FuzzAnnotation(f *testing.F) {
	f.Add("main.go:3:14: oops")
	f.Add("\x1b[31m../a.b:1:1: \x00")
	f.Fuzz(func(t *testing.T, printed string) {
		for _, line := range lastLines([]byte(printed), shownLines) {
			a := annotation(line)
			if a != nil && (strings.HasPrefix(a.GetPath(), "/") || slices.Contains(strings.Split(a.GetPath(), "/"), "..") || a.GetMessage() == "") {
				t.Errorf("%q: %v", line, a)
			}
		}
	})
}
