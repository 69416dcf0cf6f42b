package scheduler

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/logs"
)

func TestRunnerThatPassesEveryStepMakesThePullRequestGreen(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		if spec.Attempt != id+"-1" || spec.Repository != "Acme/shop" || spec.Action != "test" || spec.Image != "golang:1.26" {
			t.Errorf("spec = %+v", spec)
		}
		u := r.attach(spec.Runner.Token)
		if u.source != "tarball" || len(u.plan.GetSteps()) != 2 || u.plan.GetSteps()[1].GetRun() != "go test ./..." {
			t.Errorf("source %q, plan %v", u.source, u.plan)
		}
		for name, want := range map[string]string{
			"CI": "true", "CGO_ENABLED": "0", "FORGE_ACTION": "test", "FORGE_PULL_REQUEST": "1", "FORGE_SHA": "aaa", "FORGE_BUILD_ID": id,
			"FORGE_OWNER": "Acme", "FORGE_REPO": "shop", "FORGE_REF": "refs/pull/1/head", "FORGE_BASE_REF": "main",
			"FORGE_TAG": "", "FORGE_BEFORE_SHA": "", "FORGE_DEFAULT_BRANCH": repository().GetDefaultBranch(), "FORGE_COMMIT_MESSAGE": "Add a till", "FORGE_BASE_SHA": "base",
			"FORGE_VERSION": "rc2", "FORGE_COMMIT_COUNT": "2", "FORGE_BUILD_URL": "https://forge.example/builds/" + id,
		} {
			if got := u.plan.GetEnvironment()[name]; got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		if tp := u.plan.GetEnvironment()["TRACEPARENT"]; !strings.Contains(tp, r.build(id).GetTraceId()) {
			t.Errorf("TRACEPARENT = %q", tp)
		}
		r.becomes(id, schedulerv1.Build_STATE_RUNNING)
		u.send(passing(2)...)
		if err := u.refused(); err != nil {
			t.Errorf("the stream ended with %v", err)
		}
		b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED)
		if len(b.GetSteps()) != 2 || b.GetSteps()[0].GetState() != schedulerv1.Step_STATE_PASSED || b.GetLogSize() != 6 || b.GetSteps()[1].GetLogOffset() != 3 {
			t.Errorf("reported %v", b)
		}
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(spec.Attempt) {
				return fault.New(fault.Conflict, "the container is still there")
			}
			return nil
		})
		var names []string
		for _, span := range r.spans.Ended() {
			if span.SpanContext().TraceID().String() == b.GetTraceId() {
				names = append(names, span.Name())
			}
		}
		for _, want := range []string{"plan", "wait in queue", "start container", "step vet", "step unit tests"} {
			if !strings.Contains(strings.Join(names, ","), want) {
				t.Errorf("no span %q in %q", want, names)
			}
		}
	})
}

func TestFailingStepFailsTheBuildAndSkipsTheRest(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 3), over(3, schedulerv1.Ended_CAUSE_DONE))
		b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if b.GetReason() != schedulerv1.Build_REASON_STEP_FAILED || b.GetMessage() != `step 1 "vet" ended with exit code 3` {
			t.Errorf("%v %q", b.GetReason(), b.GetMessage())
		}
		if b.GetSteps()[0].GetExitCode() != 3 || b.GetSteps()[1].GetState() != schedulerv1.Step_STATE_SKIPPED {
			t.Errorf("steps %v", b.GetSteps())
		}
	})
}

func TestReportsSentAgainAfterABreakAreStoredOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		first := r.attach(token)
		all := passing(2)
		first.send(all[:4]...)
		first.acked(4)
		first.leave()

		again := r.reattach(token)
		if again.stored != 4 {
			t.Errorf("welcome says %d are stored, want 4", again.stored)
		}
		again.send(all[2:]...) // two of them are known
		again.acked(7)
		if b := r.becomes(id, schedulerv1.Build_STATE_PASSED); b.GetLogSize() != 6 {
			t.Errorf("log of %d bytes, want 6", b.GetLogSize())
		}
	})
}

func TestRunnerIsRefused(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		u := r.attach(token)
		hello := func(runnerID string) *schedulerv1.Hello {
			return &schedulerv1.Hello{RunnerId: runnerID, HasPlan: true, HasSource: true}
		}
		for _, c := range []struct {
			name  string
			token string
			hello *schedulerv1.Hello
			want  codes.Code
		}{
			{"without a token of ours", strings.Repeat("0", 64), hello("runner-1"), codes.Unauthenticated},
			{"without a name", token, hello(""), codes.InvalidArgument},
			{"as the second runner of an attempt", token, hello("runner-2"), codes.FailedPrecondition},
		} {
			if err := r.stream(c.token, c.hello).refused(); status.Code(err) != c.want {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		u.send(began(1, 1), exited(3, 1, 0)) // 2 is missing
		if err := u.refused(); status.Code(err) != codes.Unavailable {
			t.Errorf("after a gap: %v, want Unavailable", err)
		}
		for name, wrong := range map[string]*schedulerv1.Report{
			"a step that is not planned":     began(2, 9),
			"a step that was started before": began(2, 1),
			"a step that did not run":        exited(2, 2, 0),
			"more output than one may bring": printed(2, 1, strings.Repeat("x", logs.MaxOutput+1)),
		} {
			u = r.reattach(token)
			u.send(wrong)
			if err := u.refused(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v, want InvalidArgument", name, err)
			}
		}
		u = r.reattach(token)
		if u.stored != 1 {
			t.Errorf("stored %d before the gap, want 1", u.stored)
		}
		u.send(printed(2, 1, "x"), exited(3, 1, 1), over(4, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		if err := r.stream(token, hello("runner-1")).refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("after the end: %v, want FailedPrecondition", err)
		}
	})
}

func TestStepsThatAreNotKnownToHavePassedNeverPass(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for n, c := range []struct {
			reports []*schedulerv1.Report
			state   schedulerv1.Build_State
			reason  schedulerv1.Build_Reason
		}{
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_DONE)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST},
			{[]*schedulerv1.Report{began(1, 1), exited(2, 1, 0), over(3, schedulerv1.Ended_CAUSE_DONE)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST},
			{[]*schedulerv1.Report{began(1, 1), exited(2, 1, 0), began(3, 2), over(4, schedulerv1.Ended_CAUSE_DONE)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST},
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_UNSPECIFIED)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_LOST},
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_NO_SOURCE)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SOURCE_UNAVAILABLE},
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_SOURCE_REFUSED)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SOURCE_REFUSED},
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_NOT_RUNNABLE)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_NOT_RUNNABLE},
			{[]*schedulerv1.Report{over(1, schedulerv1.Ended_CAUSE_SERVICE_NOT_READY)}, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_START_FAILED},
			{[]*schedulerv1.Report{began(1, 1), over(2, schedulerv1.Ended_CAUSE_TIMED_OUT)}, schedulerv1.Build_STATE_TIMED_OUT, schedulerv1.Build_REASON_UNSPECIFIED},
		} {
			id := r.built(opened(int32(n+1), "aaa"))
			u := r.attach(r.spec(id, 1).Runner.Token)
			u.send(c.reports...)
			if b := r.becomes(id, c.state); b.GetReason() != c.reason {
				t.Errorf("case %d: %v %q, want %v", n, b.GetReason(), b.GetMessage(), c.reason)
			}
		}
	})
}

func TestSourceIsTriedAgainAndItsAbsenceIsTold(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		r.config.mu.Lock()
		r.config.sourceErr = []error{fault.New(fault.Unavailable, "GitHub is down")}
		r.config.breaks = 1
		r.config.mu.Unlock()
		broken := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1"})
		if err := broken.refused(); status.Code(err) != codes.Unavailable {
			t.Errorf("a source that broke off: %v, want Unavailable", err)
		}
		if u := r.attach(token); u.source != "tarball" {
			t.Errorf("source = %q", u.source)
		}

		id = r.built(opened(2, "bbb"))
		r.config.mu.Lock()
		r.config.sourceErr = []error{fault.New(fault.NotFound, "no such commit")}
		r.config.mu.Unlock()
		u := r.stream(r.spec(id, 1).Runner.Token, &schedulerv1.Hello{RunnerId: "runner-2", HasPlan: true})
		u.recv() // welcome
		if text := u.recv().GetSource().GetError(); text != "no source of bbb: no such commit" {
			t.Errorf("error = %q", text)
		}
	})
}

func TestCancelReachesTheRunnerAndItsEndIsCancelled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id, Message: "no more"}); err != nil {
			t.Fatal(err)
		}
		if told := u.recv().GetCancel().GetMessage(); told != "no more" {
			t.Errorf("told %q", told)
		}
		stopped := exited(2, 1, 143)
		stopped.GetStepEnded().Stopped = true
		u.send(stopped, over(3, schedulerv1.Ended_CAUSE_CANCELLED))
		b := r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		if b.GetReason() != schedulerv1.Build_REASON_CANCEL_ASKED || b.GetMessage() != "no more" || b.GetSteps()[0].GetState() != schedulerv1.Step_STATE_STOPPED {
			t.Errorf("%v", b)
		}
		_, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("cancel again: %v", err)
		}
	})
}

func TestCancelIsToldToARunnerThatComesLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		token := r.spec(id, 1).Runner.Token
		r.attach(token).leave()
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		if u := r.reattach(token); u.recv().GetCancel().GetMessage() != "cancelled by an administrator" {
			t.Error("not told to stop")
		}
	})
}

func TestBuildWhoseRunnerStaysSilentAfterCancelIsStopped(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		spec := r.spec(id, 1)
		u := r.attach(spec.Runner.Token)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(19 * time.Second)
		r.sweep()
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("%v too early", b.GetState())
		}
		r.clock.Advance(time.Second)
		r.sweep()
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		if err := u.refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the runner: %v, want FailedPrecondition", err)
		}
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(spec.Attempt) {
				return fault.New(fault.Conflict, "the container is still there")
			}
			return nil
		})
	})
}

func TestRunnerThatNeverEndsIsTimedOut(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		u.send(began(1, 1))
		u.acked(1)
		r.clock.Advance(time.Hour + 69*time.Second)
		r.sweep()
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Fatalf("%v too early", b.GetState())
		}
		r.clock.Advance(2 * time.Second)
		r.sweep()
		b := r.becomes(id, schedulerv1.Build_STATE_TIMED_OUT)
		if b.GetMessage() != "ran longer than 1h0m0s" || b.GetSteps()[0].GetState() != schedulerv1.Step_STATE_STOPPED {
			t.Errorf("%v", b)
		}
	})
}

// A runner that keeps no limit is cut off, and the log says so once.
func TestLogLimitHoldsForAnyRunner(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.service.attempts.Limits.Log, r.service.logs.Limit = 1000, 1000
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		u.send(began(1, 1))
		const last = 2 + logs.OverLimit/logs.MaxOutput + 5
		for n := int64(2); n < last; n++ {
			u.send(printed(n, 1, strings.Repeat("x", logs.MaxOutput)))
		}
		u.send(exited(last, 1, 0))
		u.acked(last)
		stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
		if err != nil {
			t.Fatal(err)
		}
		log := string(readLog(t, stream, 0))
		if len(log) != 1000+logs.OverLimit+len(logs.LimitNote) || strings.Count(log, logs.LimitNote) != 1 || !strings.HasSuffix(log, logs.LimitNote) {
			t.Errorf("%d bytes that end in %q", len(log), log[max(0, len(log)-100):])
		}
		if u.plan.GetLogLimit() != 1000 {
			t.Errorf("the runner is told %d", u.plan.GetLogLimit())
		}
	})
}
