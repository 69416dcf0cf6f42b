package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestWhatTestsReportIsListed(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		id := r.built(opened(1, "aaa"))
		r.ran(id, 1, went("adds", testPassed, 100), went("total", testFailed, 10), went("crash", testErrored, 70), went("later", schedulerv1.Test_STATE_SKIPPED, 0),
			went("twice", testPassed, 20), went("twice", testFailed, 5))
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		for _, size := range []int32{0, 1, 2} {
			sum := r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id, PageSize: size},
				"ERRORED crash shop_test.go:7 crash does not hold", "FAILED total shop_test.go:7 total does not hold",
				"FAILED twice flaky shop_test.go:7 twice does not hold", "SKIPPED later", "PASSED adds")
			if got := fmt.Sprint(sum.GetPassed(), sum.GetSkipped(), sum.GetFailed(), sum.GetErrored(), sum.GetFlaky(), sum.FailsOnBase == nil); got != "1 1 2 1 1 true" {
				t.Errorf("counts %s", got)
			}
			r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id, PageSize: size, Order: schedulerv1.ListTestsRequest_ORDER_SLOWEST},
				"PASSED adds", "ERRORED crash shop_test.go:7 crash does not hold")
			r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id, PageSize: size, States: []schedulerv1.Test_State{testPassed, schedulerv1.Test_STATE_SKIPPED}},
				"SKIPPED later", "PASSED adds")
		}
		kittest.Eventually(t, patience, func() error {
			report := r.reporter.shows("aaa", "forge/test")
			if tests := report.GetTests(); len(tests.GetFailed()) != 3 || tests.GetSummary().GetFailed() != 2 || tests.GetFailed()[0].GetMessage() != "crash does not hold" {
				return fmt.Errorf("the reporter was told %v", tests)
			}
			return nil
		})
		for name, req := range map[string]*schedulerv1.ListTestsRequest{"none": {BuildId: "none"}, "foreign": {BuildId: id, PageToken: "x"}} {
			if _, err := r.tests.ListTests(t.Context(), req); status.Code(err) != map[string]codes.Code{"none": codes.NotFound, "foreign": codes.InvalidArgument}[name] {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestFindingsAreListedTheGravestFirst(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		findings := report(2)
		findings.Event = &schedulerv1.Report_Tests{Tests: &schedulerv1.TestReport{LeftOut: 3, Findings: []*schedulerv1.Finding{
			{Level: schedulerv1.Finding_LEVEL_NOTE, Tool: "lint", Rule: "n", Message: "a note"},
			{Level: schedulerv1.Finding_LEVEL_ERROR, Tool: "lint", Rule: "e", File: "a.go", Line: 3, EndLine: 4, Message: "an error"},
			{Level: 77, Tool: "lint", Message: "of no level"},
		}}}
		u.send(began(1, 1), findings, exited(3, 1, 1), over(4, schedulerv1.Ended_CAUSE_DONE))
		if err := u.refused(); err != nil {
			t.Fatal(err)
		}
		var got []string
		req := &schedulerv1.ListFindingsRequest{BuildId: id, PageSize: 1}
		for more := true; more; more = req.GetPageToken() != "" {
			answer, err := r.tests.ListFindings(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range answer.GetFindings() {
				got = append(got, fmt.Sprintf("%v %s:%d-%d %s", f.GetLevel(), f.GetFile(), f.GetLine(), f.GetEndLine(), f.GetMessage()))
			}
			req.PageToken = answer.GetNextPageToken()
		}
		if want := []string{"LEVEL_ERROR a.go:3-4 an error", "LEVEL_WARNING :0-0 of no level", "LEVEL_NOTE :0-0 a note"}; !slices.Equal(got, want) {
			t.Errorf("findings %q", got)
		}
		if sum := r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id}); sum.GetFindings() != 3 || sum.GetLeftOut() != 3 {
			t.Errorf("%v", sum)
		}
	})
}

// A report that comes again after a break counts once, and none of an attempt that is over.
func TestResultsCountOnceAndOfTheirAttemptAlone(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		u := r.attach(token)
		u.send(began(1, 1), told(2, went("adds", testPassed, 1)))
		u.acked(2)
		u.leave()
		u = r.reattach(token)
		u.send(told(2, went("adds", testFailed, 1)), told(3, went("total", testFailed, 1)))
		u.acked(3)
		r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id}, "FAILED total shop_test.go:7 total does not hold", "PASSED adds")
		u.send(exited(4, 1, 1), over(5, schedulerv1.Ended_CAUSE_DONE))
		if err := u.refused(); err != nil {
			t.Fatal(err)
		}
		late := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", HasPlan: true, HasSource: true})
		_ = late.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: told(6, went("adds", testFailed, 1))}})
		if err := late.refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%v", err)
		}
		r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id}, "FAILED total shop_test.go:7 total does not hold", "PASSED adds")
	})
}

func TestFailureIsHeldAgainstTheBaseBranch(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		r.ran(r.onMain("m1"), 1, went("total", testPassed, 1), went("adds", testFailed, 1))
		id := r.built(opened(1, "aaa"))
		r.ran(id, 1, went("total", testFailed, 1), went("adds", testFailed, 1), went("new", testFailed, 1))
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		req := func() *schedulerv1.ListTestsRequest { return &schedulerv1.ListTestsRequest{BuildId: id} }
		sum := r.wantTests(req(), "FAILED total shop_test.go:7 total does not hold", "FAILED adds shop_test.go:7 adds does not hold (also on the base)", "FAILED new shop_test.go:7 new does not hold")
		if sum.GetFailsOnBase() != 1 || sum.GetBaseRef() != "main" {
			t.Errorf("%v", sum)
		}
		// Main gets well.
		r.ran(r.onMain("m2"), 1, went("total", testPassed, 1), went("adds", testPassed, 1))
		kittest.Eventually(t, patience, func() error {
			if _, sum := r.listed(req()); sum.FailsOnBase == nil || sum.GetFailsOnBase() != 0 {
				return fmt.Errorf("%v", sum)
			}
			return nil
		})
	})
}

// No pull request, a fork's or not, changes what is said of main or of another, whatever it reports.
func TestPullRequestsHaveNoSayInWhatMainDoes(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		r.ran(r.built(opened(8, "ddd")), 1, placed("total"), placed("adds")) // before main has any of that name
		r.ran(r.onMain("m1"), 1, went("total", testPassed, 1), &schedulerv1.Test{Suite: "unit", Class: "shop", Name: "adds", State: testFailed, Message: "of no place"})
		attacks := map[string]*eventv1.Event{
			"a fork's":           fromFork("ada", opened(5, "fff")),
			"a pull request's":   opened(6, "eee"),
			"of main's commit":   opened(7, "m1"),
			"a merge group's":    group("checks_requested", "main", "ggg"),
			"a feature branch's": nil,
		}
		for name, e := range attacks {
			if e == nil {
				config := usual()
				config.Push = &configv1.Push{Branches: []string{"**"}, Execute: config.GetExecute()}
				r.config.set("hhh", valid(config))
				e = pushedTo("refs/heads/feature", "hhh")
				e.DeliveryId = "feature"
			}
			id := r.built(e)
			r.ran(id, 1, went("total", testFailed, 1), went("adds", testPassed, 1), went("of mine", testFailed, 1))
			r.becomes(id, schedulerv1.Build_STATE_FAILED)
			again := r.rebuilt(id)
			r.ran(again, 1, went("total", testPassed, 1), went("adds", testFailed, 1), went("of mine", testPassed, 1))
			r.becomes(again, schedulerv1.Build_STATE_FAILED)
			if got := r.flaky(0); got != "" {
				t.Errorf("%s: main's flaky tests are %s", name, got)
			}
		}
		main := r.onMain("m2")
		r.ran(main, 1, went("total", testPassed, 1), &schedulerv1.Test{Suite: "unit", Class: "shop", Name: "adds", State: testFailed, Message: "of no place"})
		r.becomes(main, schedulerv1.Build_STATE_FAILED)
		r.wantTests(&schedulerv1.ListTestsRequest{BuildId: main}, "FAILED adds :0 of no place", "PASSED total")
		id := r.built(opened(1, "aaa"))
		r.ran(id, 1, went("total", testFailed, 1), went("adds", testFailed, 1))
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		sum := r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id}, "FAILED total shop_test.go:7 total does not hold", "FAILED adds shop_test.go:7 adds does not hold (also on the base)")
		if sum.GetFailsOnBase() != 1 || sum.GetFlaky() != 0 {
			t.Errorf("%v", sum)
		}
		for number, want := range map[int32]string{0: "", 1: "", 5: "total 1, adds 1, of mine 1", 6: "total 1, adds 1, of mine 1", 7: "total 1, adds 1, of mine 1"} {
			got := strings.Split(r.flaky(number), ", ")
			slices.Sort(got)
			wanted := strings.Split(want, ", ")
			slices.Sort(wanted)
			if !slices.Equal(got, wanted) {
				t.Errorf("pull request %d has the flaky tests %q, want %q", number, got, wanted)
			}
		}
	})
}

func TestTestIsFlakyThatPassedAndFailedOnOneCommit(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		first := r.onMain("m1")
		r.ran(first, 1, went("total", testFailed, 1), went("adds", testPassed, 1), went("crash", testFailed, 1))
		r.becomes(first, schedulerv1.Build_STATE_FAILED)
		second := r.rebuilt(first)
		r.ran(second, 1, went("total", testPassed, 1), went("adds", testPassed, 1), went("crash", testFailed, 1))
		r.becomes(second, schedulerv1.Build_STATE_FAILED)
		if got := r.flaky(0); got != "total 1" {
			t.Errorf("flaky: %s", got)
		}
		answer, err := r.tests.ListFlakyTests(t.Context(), &schedulerv1.ListFlakyTestsRequest{Repository: "Acme/Shop"})
		if err != nil || answer.GetTests()[0].GetFailedBuildId() != first || answer.GetTests()[0].GetPassedBuildId() != second || answer.GetTests()[0].GetSha() != "m1" {
			t.Errorf("%v, %v", answer, err)
		}
		// Another commit, on which it passes, changes nothing; on a third it is flaky again.
		r.ran(r.onMain("m2"), 1, went("crash", testPassed, 1))
		third := r.onMain("m3")
		r.ran(third, 1, went("total", testFailed, 1), went("total", testPassed, 1))
		r.becomes(third, schedulerv1.Build_STATE_FAILED)
		if got := r.flaky(0); got != "total 2" {
			t.Errorf("flaky: %s", got)
		}
		r.clock.Advance(15 * 24 * time.Hour)
		if got := r.flaky(0); got != "" {
			t.Errorf("flaky after two weeks: %s", got)
		}
		for _, name := range []string{"", "nobody/nothing"} {
			if _, err := r.tests.ListFlakyTests(t.Context(), &schedulerv1.ListFlakyTestsRequest{Repository: name}); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.NotFound {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

// What a retried attempt reported counts no more, but for what it shows to be flaky.
func TestOnlyTheLatestAttemptCounts(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		config := usual()
		config.Retry = &configv1.Retry{Times: 1, AnyExitCode: true}
		r.config.set("aaa", valid(config))
		id := r.built(opened(1, "aaa"))
		r.ran(id, 1, went("total", testFailed, 1), went("adds", testPassed, 1))
		r.ran(id, 2, went("total", testPassed, 1))
		r.becomes(id, schedulerv1.Build_STATE_PASSED)
		if sum := r.wantTests(&schedulerv1.ListTestsRequest{BuildId: id}, "PASSED total"); sum.GetFlaky() != 1 || sum.GetFailed() != 0 {
			t.Errorf("%v", sum)
		}
		if got := r.flaky(1); got != "total 1" {
			t.Errorf("flaky: %s", got)
		}
	})
}

func TestHistoryOfATest(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		r.ran(r.onMain("m1"), 1, went("total", testPassed, 1))
		r.ran(r.onMain("m2"), 1, went("total", testFailed, 1), &schedulerv1.Test{Suite: "other", Name: "total", State: testPassed})
		r.ran(r.built(opened(1, "aaa")), 1, went("total", testPassed, 1))
		history := func(req *schedulerv1.ListTestHistoryRequest) (got []string) {
			req.Repository, req.PageSize = "acme/shop", 2
			for {
				answer, err := r.tests.ListTestHistory(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, one := range answer.GetTests() {
					got = append(got, fmt.Sprintf("%s %s %v %d", cmp.Or(one.GetBranch(), "-"), one.GetSha(), one.GetState() == testPassed, one.GetPullRequest()))
				}
				if req.PageToken = answer.GetNextPageToken(); req.GetPageToken() == "" {
					return got
				}
			}
		}
		if got := history(&schedulerv1.ListTestHistoryRequest{Name: "total", Class: "shop"}); !slices.Equal(got, []string{"- aaa true 1", "main m2 false 0", "main m1 true 0"}) {
			t.Errorf("history %q", got)
		}
		if got := history(&schedulerv1.ListTestHistoryRequest{Name: "total"}); len(got) != 4 {
			t.Errorf("history of both %q", got)
		}
		if _, err := r.tests.ListTestHistory(t.Context(), &schedulerv1.ListTestHistoryRequest{Repository: "acme/shop", Name: "none"}); status.Code(err) != codes.NotFound {
			t.Errorf("none: %v", err)
		}
	})
}

// A runner may be anybody's and keep no bound.
func TestHostileResultsAreCleaned(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		id := r.built(opened(1, "aaa"))
		long := strings.Repeat("é\x00\n", 5000)
		r.ran(id, 1, &schedulerv1.Test{Suite: long, Class: long, Name: long, File: long, Line: -3, State: 99, Message: long, Duration: durationpb.New(-time.Hour), Sha: "forged"},
			&schedulerv1.Test{Name: "endless", State: testFailed, Duration: &durationpb.Duration{Seconds: 1 << 60}, Line: 1 << 30})
		answer, err := r.tests.ListTests(t.Context(), &schedulerv1.ListTestsRequest{BuildId: id})
		if err != nil || len(answer.GetTests()) != 2 {
			t.Fatalf("%v, %v", answer, err)
		}
		one := answer.GetTests()[0]
		if one.GetState() != testErrored || len(one.GetName()) > 500 || len(one.GetMessage()) > 4000 || one.GetLine() != 0 || one.GetSha() != "aaa" ||
			strings.ContainsAny(one.GetName(), "\x00\n") || strings.Contains(one.GetMessage(), "\x00") {
			t.Errorf("%v", one)
		}
	})
}

func TestRunnerThatReadsNoReportsIsAskedForNone(t *testing.T) {
	each(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		config := usual()
		config.Reports = &configv1.Reports{Junit: []string{"*.xml"}}
		for sha, reads := range map[string]bool{"aaa": false, "bbb": true} {
			r.config.set(sha, valid(config))
			number := int32(len(sha)) + map[bool]int32{true: 1}[reads]
			u := r.stream(r.spec(r.built(opened(number, sha)), 1).Runner.Token, &schedulerv1.Hello{RunnerId: "r", ReadsReports: reads})
			u.recv()
			plan := u.recv().GetPlan()
			if (plan.GetReports() != nil) != reads || (len(plan.GetNotices()) == 0) != reads {
				t.Errorf("%v: %v", reads, plan)
			}
		}
	})
}

func TestResultsGoWithTheirBuilds(t *testing.T) {
	eachStopped(t, func(t *testing.T, rig *rig) {
		r := results{rig}
		r.deps.Retention.Builds = 10 * time.Hour
		r.start()
		id := r.built(opened(1, "aaa"))
		r.ran(id, 1, went("total", testFailed, 1), went("total", testPassed, 1), went("adds", testPassed, 1))
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		r.settled()
		r.clock.Advance(20 * 24 * time.Hour)
		e := opened(2, "bbb")
		e.GetPullRequest().GetPullRequest().UpdateTime = timestamppb.New(r.clock.Now())
		stays := r.built(e)
		r.ran(stays, 1, went("adds", testPassed, 1))
		r.becomes(stays, schedulerv1.Build_STATE_PASSED)
		r.settled()
		r.pruned()
		for table, want := range map[string]int{"test_names": 1, "test_runs": 1, "test_results": 1, "test_failures": 0, "test_findings": 0, "test_flakes": 0} {
			var got int
			if err := r.deps.DB.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&got); err != nil || got != want {
				t.Errorf("%s has %d rows, want %d, error %v", table, got, want, err)
			}
		}
		r.wantTests(&schedulerv1.ListTestsRequest{BuildId: stays}, "PASSED adds")
	})
}
