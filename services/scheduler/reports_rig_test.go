package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// results is a rig whose builds report on their tests.
type results struct{ *rig }

const (
	testPassed  = schedulerv1.Test_STATE_PASSED
	testFailed  = schedulerv1.Test_STATE_FAILED
	testErrored = schedulerv1.Test_STATE_ERRORED
)

// went is a test that went so, in milliseconds.
func went(name string, state schedulerv1.Test_State, took int64) *schedulerv1.Test {
	t := &schedulerv1.Test{Suite: "unit", Class: "shop", Name: name, State: state, Duration: durationpb.New(time.Duration(took) * time.Millisecond)}
	if state >= testFailed {
		t.File, t.Line, t.Message = "shop_test.go", 7, name+" does not hold"
	}
	return t
}

// placed is a test that has passed, at a place that is none.
func placed(name string) *schedulerv1.Test {
	t := went(name, testPassed, 1)
	t.File, t.Line = "forged.go", 66
	return t
}

func told(sequence int64, tests ...*schedulerv1.Test) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_Tests{Tests: &schedulerv1.TestReport{Tests: tests}}
	return r
}

// ran plays an attempt whose tests went so. It fails where one of them does.
func (r results) ran(id string, number int32, tests ...*schedulerv1.Test) {
	r.t.Helper()
	u := r.attach(r.spec(id, number).Runner.Token)
	code := int32(0)
	if slices.ContainsFunc(tests, func(t *schedulerv1.Test) bool { return t.GetState() >= testFailed }) {
		code = 1
	}
	steps := int32(len(u.plan.GetSteps()))
	sequence := int64(0)
	next := func() int64 { sequence++; return sequence }
	for n := int32(1); n <= steps; n++ {
		u.send(began(next(), n))
		if code != 0 || n == steps {
			u.send(exited(next(), n, code))
			break
		}
		u.send(exited(next(), n, 0))
	}
	u.send(told(next(), tests...), over(next(), schedulerv1.Ended_CAUSE_DONE))
	if err := u.refused(); err != nil {
		r.t.Fatalf("run of %s: %v", id, err)
	}
}

// listed are the tests of a build, each a line, and its counts.
func (r results) listed(req *schedulerv1.ListTestsRequest) (lines []string, sum *schedulerv1.TestSummary) {
	r.t.Helper()
	for {
		answer, err := r.tests.ListTests(r.t.Context(), req)
		if err != nil {
			r.t.Fatalf("tests of %s: %v", req.GetBuildId(), err)
		}
		for _, t := range answer.GetTests() {
			line := strings.TrimPrefix(t.GetState().String(), "STATE_") + " " + t.GetName()
			if t.GetFlaky() {
				line += " flaky"
			}
			if t.GetMessage() != "" {
				line += fmt.Sprintf(" %s:%d %s", t.GetFile(), t.GetLine(), t.GetMessage())
			}
			if t.GetFailsOnBase() {
				line += " (also on the base)"
			}
			lines = append(lines, line)
		}
		req.PageToken, sum = answer.GetNextPageToken(), answer.GetSummary()
		if req.GetPageToken() == "" {
			return lines, sum
		}
	}
}

func (r results) wantTests(req *schedulerv1.ListTestsRequest, want ...string) *schedulerv1.TestSummary {
	r.t.Helper()
	got, sum := r.listed(req)
	if !slices.Equal(got, want) {
		r.t.Errorf("tests\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return sum
}

// flaky are the names of the flaky tests of main, or of a pull request.
func (r results) flaky(number int32) string {
	r.t.Helper()
	var names []string
	req := &schedulerv1.ListFlakyTestsRequest{Repository: "acme/shop", PullRequest: number, PageSize: 1}
	for {
		answer, err := r.tests.ListFlakyTests(r.t.Context(), req)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, t := range answer.GetTests() {
			names = append(names, fmt.Sprintf("%s %d", t.GetName(), t.GetCommits()))
		}
		if req.PageToken = answer.GetNextPageToken(); req.GetPageToken() == "" {
			return strings.Join(names, ", ")
		}
	}
}

// onMain builds a push to main.
func (r results) onMain(sha string) string {
	r.t.Helper()
	config := usual()
	config.Push = &configv1.Push{Branches: []string{"**"}, Execute: config.GetExecute()}
	r.config.set(sha, valid(config))
	e := pushedTo("refs/heads/main", sha)
	e.DeliveryId = "pushed-" + sha
	return r.built(e)
}

func (r results) rebuilt(id string) string {
	r.t.Helper()
	answer, err := r.builds.RetryBuild(r.t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
	if err != nil {
		r.t.Fatalf("retry %s: %v", id, err)
	}
	return answer.GetBuild().GetId()
}
