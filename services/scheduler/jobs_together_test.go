package scheduler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestForksJobsWaitForApproval(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("fff", ofJobs(job("lint", func(j *configv1.Job) {
			j.Secrets, j.Ports = []string{"TOKEN"}, []*configv1.Port{{Container: 1, Host: 1}}
		}), job("test", needs("lint"))))
		id := r.send(fromFork("eve", opened(2, "fff"))).GetBuildIds()[0]
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_BLOCKED || !b.GetSecretsWithheld() {
			t.Errorf("%v", b)
		}
		r.wake()
		kittest.Want(t, jobsOf(r, id), "lint waiting; test waiting")
		if names := r.engine.attempts(); len(names) > 0 {
			t.Errorf("containers of a blocked build: %v", names)
		}
		if _, err := r.builds.ApproveBuild(t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: store.JobID(id, 1)}); err != nil {
			t.Fatal(err)
		}
		if spec := r.spec(store.JobID(id, 1), 1); len(spec.Ports) > 0 || !spec.Fork {
			t.Errorf("%+v", spec)
		}
		r.pass(store.JobID(id, 1))
		r.pass(store.JobID(id, 2))
		r.becomes(id, schedulerv1.Build_STATE_PASSED)
	})
}

func TestDeployHoldsItsEnvironmentUntilItsLastContainerIsGone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, sha := range []string{"m1", "m2"} {
			r.config.set(sha, ofJobs(job("migrate"), job("web", needs("migrate")), job("worker", needs("migrate"))))
		}
		one, two := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(2, "main", "m2"))
		if b := r.build(two); b.GetReason() != schedulerv1.Build_REASON_ENVIRONMENT_BUSY {
			t.Errorf("%v", b)
		}
		kittest.Want(t, jobsOf(r, two), "migrate waiting; web waiting; worker waiting")
		r.pass(store.JobID(one, 1))
		r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("the engine is away") })
		r.pass(store.JobID(one, 3))
		r.pass(store.JobID(one, 2))
		r.becomes(one, schedulerv1.Build_STATE_PASSED)
		if b := r.build(two); b.GetState() != schedulerv1.Build_STATE_WAITING {
			t.Errorf("the next deploy, while containers of the one before are there: %v", b)
		}
		r.engine.set(func(e *memoryEngine) { e.stopErr = nil })
		r.clock.Advance(time.Minute)
		r.wake()
		for n := 1; n <= 3; n++ {
			r.pass(store.JobID(two, n))
		}
		r.deployed(two)

		back, err := r.rollBack(one)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			r.pass(store.JobID(back.GetId(), n))
		}
		r.deployed(back.GetId())
	})
}

func TestCancelledBuildCancelsItsJobs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint"), job("test"), job("package", needs("lint", "test"), on(configv1.Condition_ON_ALWAYS))))
		id := r.built(opened(1, "aaa"))
		lint, test := store.JobID(id, 1), store.JobID(id, 2)
		u := r.attach(r.spec(lint, 1).Runner.Token)
		u.send(began(1, 1))
		r.spec(test, 1)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id, Message: "not today"}); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{test, store.JobID(id, 3)} {
			if b := r.becomes(part, schedulerv1.Build_STATE_CANCELLED); b.GetMessage() != "not today" {
				t.Errorf("%v", b)
			}
		}
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Errorf("the build while one job still stops: %v", b)
		}
		u.send(over(2, schedulerv1.Ended_CAUSE_CANCELLED))
		whole := r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		if whole.GetReason() != schedulerv1.Build_REASON_CANCEL_ASKED || whole.GetMessage() != "not today" {
			t.Errorf("%v", whole)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("cancelled once more: %v", err)
		}
	})
}

func TestOneJobCanBeCancelled(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint"), job("test"), job("package", needs("lint"))))
		id := r.built(opened(1, "aaa"))
		r.spec(store.JobID(id, 1), 1)
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: store.JobID(id, 1), Message: "stuck"}); err != nil {
			t.Fatal(err)
		}
		r.pass(store.JobID(id, 2))
		whole := r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		kittest.Want(t, whole.GetMessage(), "1 of 3 jobs was cancelled: lint")
		kittest.Want(t, jobsOf(r, id), "lint cancelled stuck; test passed; package cancelled not run: needs lint, which was cancelled")
	})
}

func TestFailFastCancelsTheOthers(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		answer := ofJobs(job("lint"), job("test"), job("package", needs("test")), job("report", needs("lint"), on(configv1.Condition_ON_FAILURE)))
		answer.GetConfig().GetExecute().FailFast = true
		r.config.set("aaa", answer)
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(store.JobID(id, 2), 1).Runner.Token)
		r.fail(store.JobID(id, 1), 1, 1)
		for u.recv().GetCancel().GetMessage() != "lint did not pass, and fail_fast is set" {
			continue
		}
		u.send(over(1, schedulerv1.Ended_CAUSE_CANCELLED))
		r.pass(store.JobID(id, 4))
		kittest.Want(t, r.becomes(id, schedulerv1.Build_STATE_FAILED).GetMessage(), "1 of 4 jobs failed: lint")
		kittest.Want(t, jobsOf(r, id), `lint failed step 1 "work" ended with exit code 1; test cancelled lint did not pass, and fail_fast is set; `+
			"package cancelled lint did not pass, and fail_fast is set; report passed")
	})
}

func TestNewHeadSupersedesJobs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint"), job("test", needs("lint"))))
		id := r.built(opened(1, "aaa"))
		r.spec(store.JobID(id, 1), 1)
		next := synchronize("aaa", "bbb", noon.Add(time.Minute))
		d := r.send(next)
		if len(d.GetBuildIds()) != 2 || !slices.Contains(d.GetBuildIds(), id) {
			t.Errorf("%v", d)
		}
		whole := r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		if whole.GetReason() != schedulerv1.Build_REASON_SUPERSEDED || whole.GetSupersededBy() != d.GetBuildIds()[0] {
			t.Errorf("%v", whole)
		}
		kittest.Want(t, jobsOf(r, id), "lint cancelled Superseded by bbb; test cancelled Superseded by bbb")
	})
}

func TestLogOfABuildWithJobsIsAskedForByJob(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint")))
		id := r.built(opened(1, "aaa"))
		r.pass(store.JobID(id, 1))
		stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(status.Convert(err).Message(), store.JobID(id, 1)) {
			t.Errorf("%v", err)
		}
		kittest.Want(t, r.printed(store.JobID(id, 1)), "ok\n")
	})
}

// An old forgexec would run what is there for a failure, and in another shell.
func TestRunnerThatIsTooOldForAJobIsToldSo(t *testing.T) {
	for name, change := range map[string]func(*configv1.Job){
		"when":              func(j *configv1.Job) { j.Commands[0].When = configv1.Command_WHEN_FAILURE },
		"shell":             func(j *configv1.Job) { j.Shell = configv1.Shell_SHELL_BASH },
		"working directory": func(j *configv1.Job) { j.WorkingDirectory = "api" },
		"outputs":           func(j *configv1.Job) { j.Outputs = []string{"VERSION"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("aaa", ofJobs(job("lint", change)))
			id := store.JobID(r.built(opened(1, "aaa")), 1)
			u := r.stream(r.spec(id, 1).Runner.Token, &schedulerv1.Hello{RunnerId: "old", MasksSecrets: true})
			if err := u.refused(); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%v", err)
			}
			b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
			if b.GetReason() != schedulerv1.Build_REASON_NOT_RUNNABLE || !strings.Contains(b.GetMessage(), "its forgexec is too old") {
				t.Errorf("%v", b)
			}
		})
	}
}

func TestStepsThatAlwaysRunHaveTheirTimeAfterACancellation(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		sweeping := func(j *configv1.Job) {
			j.Commands = append(j.Commands, &configv1.Command{Name: "sweep", Run: "rm -r left", When: configv1.Command_WHEN_ALWAYS})
		}
		r.config.set("aaa", ofJobs(job("lint"), job("e2e", sweeping)))
		id := r.built(opened(1, "aaa"))
		lint, e2e := store.JobID(id, 1), store.JobID(id, 2)
		for _, job := range []string{lint, e2e} {
			u := r.attach(r.spec(job, 1).Runner.Token)
			u.send(began(1, 1))
			u.acked(1)
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(3 * r.service.attempts.Runners.Grace)
		r.sweep()
		r.becomes(lint, schedulerv1.Build_STATE_CANCELLED)
		if b := r.build(e2e); b.GetState() != schedulerv1.Build_STATE_RUNNING {
			t.Errorf("%v", b)
		}
		r.clock.Advance(time.Minute)
		r.sweep()
		r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
	})
}

func TestFirstStepThatFailedSaysWhetherAJobIsRetried(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	r.config.set("aaa", ofJobs(job("e2e", func(j *configv1.Job) {
		j.Retry = &configv1.Retry{Times: 2, ExitCodes: []int32{75}}
		j.Commands = append(j.Commands, &configv1.Command{Name: "sweep", Run: "exit 75", When: configv1.Command_WHEN_ALWAYS})
	})))
	id := store.JobID(r.built(opened(1, "aaa")), 1)
	u := r.attach(r.spec(id, 1).Runner.Token)
	u.send(began(1, 1), exited(2, 1, 1), began(3, 2), exited(4, 2, 75), over(5, schedulerv1.Ended_CAUSE_DONE))
	if err := u.refused(); err != nil {
		t.Fatal(err)
	}
	if b := r.becomes(id, schedulerv1.Build_STATE_FAILED); b.GetAttempt() != 1 {
		t.Errorf("%v", b)
	}
}
