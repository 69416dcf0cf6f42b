package scheduler

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// modelCommands are what each job runs.
func modelCommands() []*configv1.Command {
	return []*configv1.Command{{Name: "one", Run: "true"}, {Name: "two", Run: "true"}}
}

// pipelineOf is what a commit wants run: two commands, or a graph of jobs that is the
// same each time it is asked for.
func (m *model) pipelineOf(sha string) *configv1.Pipeline {
	hash := fnv.New64a()
	fmt.Fprint(hash, sha, m.graphs)
	random := rand.New(rand.NewPCG(hash.Sum64(), m.graphs))
	one := func(in int) bool { return random.IntN(in) == 0 }
	if m.graphs == 0 || one(3) {
		return &configv1.Pipeline{Commands: modelCommands()}
	}
	p := &configv1.Pipeline{FailFast: one(4)}
	var names []string
	for n := range 2 + random.IntN(4) {
		name := fmt.Sprintf("job%d", n)
		job := &configv1.Job{Name: name, Title: name, Image: "busybox", Commands: modelCommands(), MayFail: one(5), Condition: &configv1.Condition{}}
		for _, need := range names {
			if one(2) {
				job.Needs = append(job.Needs, need)
			}
		}
		switch {
		case len(job.GetNeeds()) > 0 && one(5):
			job.Condition.On = []configv1.Condition_On{configv1.Condition_ON_FAILURE}
		case len(job.GetNeeds()) > 0 && one(6):
			job.Condition.On = []configv1.Condition_On{configv1.Condition_ON_ALWAYS}
		case one(8):
			job.Condition.Branches = []string{"nobody's"}
		case one(6):
			job.Condition.Labels = []string{modelLabel}
		}
		if one(5) {
			job.Retry = &configv1.Retry{Times: 1, AnyExitCode: true, Lost: true}
		}
		names = append(names, name)
		p.Jobs = append(p.Jobs, job)
		if one(4) {
			cell := proto.CloneOf(job)
			job.Title, cell.Title = name+" (1)", name+" (2)"
			p.Jobs = append(p.Jobs, cell)
		}
	}
	return p
}

// checkJobs holds the jobs of each build against its graph.
func (m modelChecker) checkJobs(builds []*store.Build) {
	parts := map[string][]*store.Build{}
	for _, b := range builds {
		if b.IsJob() {
			parts[b.GetPartOf()] = append(parts[b.GetPartOf()], b)
		}
	}
	for _, whole := range builds {
		if !whole.HasJobs() {
			continue
		}
		jobs := parts[whole.GetId()]
		if len(jobs) != int(whole.GetJobCount()) || whole.GetAttempt() != 0 {
			m.t.Errorf("build %s has %d jobs, %d are there; it is in attempt %d itself", whole.GetId(), whole.GetJobCount(), len(jobs), whole.GetAttempt())
		}
		for _, job := range jobs {
			m.checkJob(whole, job, jobs)
		}
		m.checkTotal(whole, jobs)
	}
}

// forgiving reports whether a job that has ended lets those run that need it.
func forgiving(job *store.Build) bool {
	return job.GetState() == schedulerv1.Build_STATE_PASSED || job.GetMayFail() || job.GetReason() == schedulerv1.Build_REASON_CONDITION
}

// checkJob: a job begins after all that it needs, where its condition holds.
func (m modelChecker) checkJob(whole, job *store.Build, jobs []*store.Build) {
	allEnded, failed := true, false
	for _, need := range jobs {
		if slices.Contains(job.GetNeeds(), need.ConfigJob().GetName()) {
			allEnded = allEnded && store.Ended(need.GetState())
			failed = failed || store.Ended(need.GetState()) && !forgiving(need)
		}
	}
	on := configv1.Condition_ON_SUCCESS
	if all := job.ConfigJob().GetCondition().GetOn(); len(all) > 0 {
		on = all[0]
	}
	holds := map[configv1.Condition_On]bool{configv1.Condition_ON_SUCCESS: !failed, configv1.Condition_ON_FAILURE: failed, configv1.Condition_ON_ALWAYS: true}[on]
	left := len(job.ConfigJob().GetCondition().GetBranches()) > 0 || strings.HasPrefix(job.GetMessage(), "not run: the pull request has no label")
	carried := job.GetReason() == schedulerv1.Build_REASON_CARRIED
	begun := job.GetAttempt() > 0 || slices.Contains([]schedulerv1.Build_State{
		schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_STATE_FAILED,
	}, job.GetState())
	open := whole.GetState() == schedulerv1.Build_STATE_QUEUED || whole.GetState() == schedulerv1.Build_STATE_RUNNING
	var why string
	switch {
	case begun && (!allEnded || !holds || left):
		why = "has begun, and may not"
	case job.GetAttempt() > 2:
		why = "was tried too often"
	case job.GetState() == schedulerv1.Build_STATE_WAITING && open && allEnded:
		why = "waits for nothing"
	case job.GetState() == schedulerv1.Build_STATE_WAITING && job.GetReason() != schedulerv1.Build_REASON_NEEDS:
		why = "does not say for what"
	case job.GetReason() == schedulerv1.Build_REASON_NEED_FAILED && (!failed || on != configv1.Condition_ON_SUCCESS):
		why = "was left out for a failure that is none"
	case job.GetReason() == schedulerv1.Build_REASON_CONDITION && !left && (failed || on != configv1.Condition_ON_FAILURE):
		why = "was left out by an if that holds"
	case job.GetReason() == schedulerv1.Build_REASON_FAIL_FAST && (!whole.Pipeline().GetFailFast() || on != configv1.Condition_ON_SUCCESS):
		why = "was cancelled by a fail_fast that is none of its"
	case carried && (whole.GetRetryOf() == "" || job.GetAttempt() > 0 || !m.passedBefore(whole.GetRetryOf(), job.GetJob())):
		why = "counts as passed, and did not pass before"
	}
	if why != "" {
		m.t.Errorf("job %s (%s) of build %s is %v and %s", job.GetId(), job.GetJob(), whole.GetId(), job.GetState(), why)
	}
}

func (m modelChecker) passedBefore(wholeID, title string) bool {
	return slices.ContainsFunc(m.builds(), func(b *store.Build) bool {
		return b.GetPartOf() == wholeID && b.GetJob() == title && b.GetState() == schedulerv1.Build_STATE_PASSED
	})
}

// checkTotal: a build ends with its last job, and is green where all that had to pass
// has.
func (m modelChecker) checkTotal(whole *store.Build, jobs []*store.Build) {
	unfinished, ran, bad := 0, false, map[schedulerv1.Build_State]int{}
	for _, job := range jobs {
		switch {
		case !store.Ended(job.GetState()):
			unfinished++
		case job.GetState() == schedulerv1.Build_STATE_PASSED:
			ran = true
		case job.GetReason() == schedulerv1.Build_REASON_CONDITION:
		case job.GetMayFail():
			ran = ran || job.GetState() != schedulerv1.Build_STATE_CANCELLED
		default:
			bad[job.GetState()]++
		}
	}
	if ended := store.Ended(whole.GetState()); ended != (unfinished == 0) {
		m.t.Errorf("build %s is %v, and %d of its jobs have not ended", whole.GetId(), whole.GetState(), unfinished)
		return
	} else if !ended {
		return
	}
	want := schedulerv1.Build_STATE_PASSED
	switch {
	case bad[schedulerv1.Build_STATE_FAILED] > 0:
		want = schedulerv1.Build_STATE_FAILED
	case bad[schedulerv1.Build_STATE_TIMED_OUT] > 0:
		want = schedulerv1.Build_STATE_TIMED_OUT
	case bad[schedulerv1.Build_STATE_ERRORED] > 0:
		want = schedulerv1.Build_STATE_ERRORED
	case bad[schedulerv1.Build_STATE_CANCELLED] > 0 || !ran:
		want = schedulerv1.Build_STATE_CANCELLED
	}
	if whole.GetState() != want {
		m.t.Errorf("build %s is %v (%s), its jobs make it %v", whole.GetId(), whole.GetState(), whole.GetMessage(), want)
	}
	if said := strings.Contains(whole.GetMessage(), "jobs failed: "); said != (want == schedulerv1.Build_STATE_FAILED && bad[schedulerv1.Build_STATE_FAILED] > 0 &&
		bad[schedulerv1.Build_STATE_TIMED_OUT]+bad[schedulerv1.Build_STATE_ERRORED] == 0) {
		m.t.Errorf("build %s is %v and says %q", whole.GetId(), whole.GetState(), whole.GetMessage())
	}
}
