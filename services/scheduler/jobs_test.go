package scheduler

import (
	"fmt"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// job is one of one step, as config reads it from a file. Its title may have the
// values of a cell.
func job(title string, change ...func(*configv1.Job)) *configv1.Job {
	name, _, _ := strings.Cut(title, " (")
	j := &configv1.Job{
		Name: name, Title: title, Image: "golang:1.26", Environment: map[string]string{"CGO_ENABLED": "0"},
		Commands: []*configv1.Command{{Name: "work", Run: "make " + name}},
	}
	for _, do := range change {
		do(j)
	}
	return j
}

func needs(names ...string) func(*configv1.Job) {
	return func(j *configv1.Job) { j.Needs = names }
}

func on(on configv1.Condition_On) func(*configv1.Job) {
	return func(j *configv1.Job) { j.Condition = &configv1.Condition{On: []configv1.Condition_On{on}} }
}

func given(c *configv1.Condition) func(*configv1.Job) {
	return func(j *configv1.Job) { j.Condition = c }
}

func mayFail(j *configv1.Job) { j.MayFail = true }

// ofJobs is a file whose every action runs the same jobs.
func ofJobs(jobs ...*configv1.Job) *configv1.GetBuildConfigResponse {
	p := &configv1.Pipeline{Jobs: jobs}
	return valid(&configv1.BuildConfig{Image: "golang:1.26", Execute: p, DeployStaging: p, DeployProduction: p, Push: &configv1.Push{Branches: []string{"**"}, Tags: []string{"**"}, Execute: p}})
}

// jobsOf says how the jobs of a build stand: "lint passed, test (1) queued".
func jobsOf(r *rig, id string) string {
	r.t.Helper()
	var all []string
	for _, j := range r.build(id).GetJobs() {
		all = append(all, strings.TrimSpace(j.GetTitle()+" "+wording.Value(j.GetState())+" "+j.GetMessage()))
	}
	return strings.Join(all, "; ")
}

// fail plays an attempt whose first step ends with a code.
func (r *rig) fail(id string, attempt, code int32) {
	r.t.Helper()
	u := r.attach(r.spec(id, attempt).Runner.Token)
	u.send(began(1, 1), printed(2, 1, "it broke\n"), exited(3, 1, code), over(4, schedulerv1.Ended_CAUSE_DONE))
	if err := u.refused(); err != nil {
		r.t.Fatalf("run of %s: %v", id, err)
	}
}

func TestJobsRunOnceWhatTheyNeedHasPassed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint"), job("test (1)", needs("lint")), job("test (2)", needs("lint")), job("package", needs("lint", "test"))))
		id := r.built(opened(1, "aaa"))
		lint, one, two, last := store.JobID(id, 1), store.JobID(id, 2), store.JobID(id, 3), store.JobID(id, 4)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_QUEUED)
		r.pass(lint)
		r.shown("aaa", "forge/test/lint", schedulerv1.Build_STATE_PASSED)
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_RUNNING)
		r.pass(two)
		if b := r.build(last); b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetReason() != schedulerv1.Build_REASON_NEEDS || b.GetPartOf() != id || b.GetJob() != "package" {
			t.Errorf("package, with one cell of test to come: %v", b)
		}
		r.pass(one)
		r.pass(last)
		whole := r.becomes(id, schedulerv1.Build_STATE_PASSED)
		kittest.Want(t, jobsOf(r, id), "lint passed; test (1) passed; test (2) passed; package passed")
		kittest.Want(t, whole.GetMessage(), "")
		if whole.GetAttempt() != 0 || whole.GetStartTime() == nil || whole.GetEndTime() == nil || whole.GetJobCount() != 4 {
			t.Errorf("%v", whole)
		}
		for _, name := range []string{"forge/test", "forge/test/test (1)", "forge/test/package"} {
			r.shown("aaa", name, schedulerv1.Build_STATE_PASSED)
		}
		list, err := r.builds.ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{})
		if err != nil || len(list.GetBuilds()) != 1 || list.GetBuilds()[0].GetJobCount() != 4 {
			t.Errorf("a list has builds and not their jobs: %v, %v", list, err)
		}
	})
}

func TestFailedJobFailsTheBuildAndWhatNeedsIt(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint"), job("test", needs("lint")), job("docs"), job("clean up", needs("test", "docs"), on(configv1.Condition_ON_FAILURE)), job("beta", mayFail)))
		id := r.built(opened(1, "aaa"))
		r.fail(store.JobID(id, 1), 1, 2)
		r.pass(store.JobID(id, 3))
		r.fail(store.JobID(id, 5), 1, 1)
		r.pass(store.JobID(id, 4))
		whole := r.becomes(id, schedulerv1.Build_STATE_FAILED)
		kittest.Want(t, whole.GetMessage(), "1 of 5 jobs failed: lint")
		kittest.Want(t, jobsOf(r, id), `lint failed step 1 "work" ended with exit code 2; test cancelled not run: needs lint, which failed; docs passed; clean up passed; `+
			`beta failed step 1 "work" ended with exit code 1`)
		if b := r.shown("aaa", "forge/test/test", schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_NEED_FAILED {
			t.Errorf("%v", b)
		}
		if b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_FAILED); b.GetReason() != schedulerv1.Build_REASON_JOBS {
			t.Errorf("%v", b)
		}
	})
}

func TestConditionsThatDoNotHoldLeaveJobsOut(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		answer := ofJobs(
			job("labelled", given(&configv1.Condition{Labels: []string{"e2e"}})), job("released", given(&configv1.Condition{Branches: []string{"release/**"}})),
			job("pushed", given(&configv1.Condition{Events: []configv1.Condition_Event{configv1.Condition_EVENT_PUSH}})), job("web"),
		)
		answer.JobsWithoutMatchingPaths = []string{"web"}
		r.config.set("aaa", answer)
		id := r.send(opened(1, "aaa")).GetBuildIds()[0]
		whole := r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
		kittest.Want(t, whole.GetMessage(), "the if of no job holds")
		kittest.Want(t, jobsOf(r, id), "labelled cancelled not run: the pull request has no label e2e; released cancelled not run: the branch is main; "+
			"pushed cancelled not run: it is not for this event; web cancelled not run: no changed file matches its paths")
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_CANCELLED)
		r.shown("aaa", "forge/test/web", schedulerv1.Build_STATE_CANCELLED)

		e := opened(2, "aaa")
		pull(e).Labels, pull(e).Base.Ref = []string{"bug", "e2e"}, "main"
		labelled := r.built(e)
		r.pass(store.JobID(labelled, 1))
		r.becomes(labelled, schedulerv1.Build_STATE_PASSED)

		// A button does not tell of labels: GitHub is asked for those there are.
		r.github.shows(e)
		again := r.built(pressedAt("aaa", labelled, ""))
		r.pass(store.JobID(again, 1))
		r.becomes(again, schedulerv1.Build_STATE_PASSED)
	})
}

func TestRetryRunsAJobOnceMoreAsOftenAsItSays(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		retry := func(retry *configv1.Retry) func(*configv1.Job) { return func(j *configv1.Job) { j.Retry = retry } }
		r.config.set("aaa", ofJobs(
			job("flaky", retry(&configv1.Retry{Times: 2, ExitCodes: []int32{75}})), job("any", retry(&configv1.Retry{Times: 1, AnyExitCode: true})),
		))
		id := r.built(opened(1, "aaa"))
		flaky, anyhow := store.JobID(id, 1), store.JobID(id, 2)
		r.fail(flaky, 1, 75)
		r.fail(flaky, 2, 75)
		kittest.Eventually(t, patience, func() error {
			if b := r.build(flaky); b.GetAttempt() != 3 {
				return fmt.Errorf("%v", b)
			}
			return nil
		})
		r.fail(flaky, 3, 75)
		r.becomes(flaky, schedulerv1.Build_STATE_FAILED)
		r.fail(anyhow, 1, 3)
		r.fail(anyhow, 2, 4)
		r.becomes(anyhow, schedulerv1.Build_STATE_FAILED)
		kittest.Want(t, r.becomes(id, schedulerv1.Build_STATE_FAILED).GetMessage(), "2 of 2 jobs failed: flaky, any")

		r.config.set("bbb", ofJobs(job("flaky", retry(&configv1.Retry{Times: 2, ExitCodes: []int32{75}}))))
		other := r.built(opened(2, "bbb"))
		r.fail(store.JobID(other, 1), 1, 1)
		r.becomes(other, schedulerv1.Build_STATE_FAILED)
	})
}

func TestOutputsReachWhatNeedsThem(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		outputs := func(j *configv1.Job) { j.Outputs = []string{"VERSION", "EMPTY"} }
		r.config.set("aaa", ofJobs(job("work-out.it", outputs), job("other"), job("last", needs("work-out.it"))))
		id := r.built(opened(1, "aaa"))
		first, other, last := store.JobID(id, 1), store.JobID(id, 2), store.JobID(id, 3)
		handOn(r, first, map[string]string{"VERSION": "1.2\n3", "EMPTY": "", "PATH": "/evil"})
		u := r.attach(r.spec(last, 1).Runner.Token)
		want := map[string]string{
			"NEEDS_WORK_OUT_IT_VERSION": "1.2\n3", "NEEDS_WORK_OUT_IT_EMPTY": "", "CGO_ENABLED": "0", "FORGE_BUILD_ID": id, "FORGE_JOB": "last",
		}
		for name, value := range want {
			if got, there := u.plan.GetEnvironment()[name]; got != value || !there {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
		if _, there := u.plan.GetEnvironment()["NEEDS_WORK_OUT_IT_PATH"]; there {
			t.Error("what the file does not name is handed on")
		}
		plain := r.attach(r.spec(other, 1).Runner.Token)
		for name := range plain.plan.GetEnvironment() {
			if strings.HasPrefix(name, "NEEDS_") {
				t.Errorf("a job that needs nothing sees %s", name)
			}
		}
	})
}

// What an attempt set that was not the last is not handed on.
func TestOutputsAreOfTheLastAttempt(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		retried := func(j *configv1.Job) {
			j.Outputs, j.Retry = []string{"VERSION"}, &configv1.Retry{Times: 1, AnyExitCode: true}
		}
		r.config.set("aaa", ofJobs(job("first", retried), job("last", needs("first"))))
		id := r.built(opened(1, "aaa"))
		first, last := store.JobID(id, 1), store.JobID(id, 2)
		u := r.attach(r.spec(first, 1).Runner.Token)
		set := report(3)
		set.Event = &schedulerv1.Report_Outputs{Outputs: &schedulerv1.Outputs{Values: map[string]string{"VERSION": "1"}}}
		u.send(began(1, 1), exited(2, 1, 75), set, over(4, schedulerv1.Ended_CAUSE_DONE))
		if err := u.refused(); err != nil {
			t.Fatal(err)
		}
		again := r.attach(r.spec(first, 2).Runner.Token)
		again.send(began(1, 1), exited(2, 1, 0), over(3, schedulerv1.Ended_CAUSE_DONE))
		if err := again.refused(); err != nil {
			t.Fatal(err)
		}
		after := r.attach(r.spec(last, 1).Runner.Token)
		if value, there := after.plan.GetEnvironment()["NEEDS_FIRST_VERSION"]; there {
			t.Errorf("NEEDS_FIRST_VERSION is %q, of an attempt that failed", value)
		}
	})
}

// handOn plays a job that sets variables and passes.
func handOn(r *rig, id string, values map[string]string) {
	r.t.Helper()
	u := r.attach(r.spec(id, 1).Runner.Token)
	set := report(3)
	set.Event = &schedulerv1.Report_Outputs{Outputs: &schedulerv1.Outputs{Values: values}}
	u.send(began(1, 1), exited(2, 1, 0), set, over(4, schedulerv1.Ended_CAUSE_DONE))
	if err := u.refused(); err != nil {
		r.t.Fatalf("run of %s: %v", id, err)
	}
	r.becomes(id, schedulerv1.Build_STATE_PASSED)
}

func TestRetestFailedRunsOnlyWhatDidNotPass(t *testing.T) {
	ask := map[string]func(r *rig, id string) string{
		"by comment": func(r *rig, _ string) string { return r.built(commentBy("ada", "/forge retest failed")) },
		"by button":  func(r *rig, id string) string { return r.built(pressedAt("aaa", id, "rerun_failed")) },
		"at a job":   func(r *rig, id string) string { return r.built(pressedAt("aaa", store.JobID(id, 2), "")) },
		"by call": func(r *rig, id string) string {
			answer, err := r.builds.RetryBuild(r.t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id, FailedOnly: true})
			if err != nil {
				r.t.Fatal(err)
			}
			return answer.GetBuild().GetId()
		},
	}
	for name, again := range ask {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				outputs := func(j *configv1.Job) { j.Outputs = []string{"VERSION"} }
				r.config.set("aaa", ofJobs(job("lint", outputs), job("test", needs("lint")), job("package", needs("test")), job("beta", mayFail)))
				first := r.built(opened(1, "aaa"))
				r.github.shows(opened(1, "aaa"))
				handOn(r, store.JobID(first, 1), map[string]string{"VERSION": "7"})
				r.fail(store.JobID(first, 2), 1, 1)
				r.fail(store.JobID(first, 4), 1, 1)
				r.becomes(first, schedulerv1.Build_STATE_FAILED)
				second := again(r, first)
				if b := r.build(second); b.GetRetryOf() != first {
					t.Errorf("%v", b)
				}
				lint := r.build(store.JobID(second, 1))
				if lint.GetState() != schedulerv1.Build_STATE_PASSED || lint.GetReason() != schedulerv1.Build_REASON_CARRIED || lint.GetAttempt() != 0 || lint.GetMessage() != "passed in build "+first {
					t.Errorf("what passed: %v", lint)
				}
				u := r.attach(r.spec(store.JobID(second, 2), 1).Runner.Token)
				kittest.Want(t, u.plan.GetEnvironment()["NEEDS_LINT_VERSION"], "7")
				u.send(passing(1)...)
				if err := u.refused(); err != nil {
					t.Fatal(err)
				}
				r.pass(store.JobID(second, 3))
				r.pass(store.JobID(second, 4))
				r.becomes(second, schedulerv1.Build_STATE_PASSED)
				if d := r.send(commentBy("ada", "once more\n/forge retest failed")); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || d.GetText() != "ignored: nothing failed in build "+second {
					t.Errorf("retest of what failed, where nothing did: %v", d)
				}
			})
		})
	}
}
