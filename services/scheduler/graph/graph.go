package graph

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Advance moves on the jobs of a build that wait for others, as far as what these
// have come to allows, and returns those that it has changed: they are queued now,
// or will never run.
func Advance(jobs []*store.Build, now time.Time) []*store.Build {
	var changed []*store.Build
	for again := true; again; {
		again = false
		for _, job := range jobs {
			if job.GetState() == schedulerv1.Build_STATE_WAITING && decide(job, jobs, now) {
				changed, again = append(changed, job), true
			}
		}
	}
	return changed
}

// decide reports whether anything becomes of a job that waits.
func decide(job *store.Build, jobs []*store.Build, now time.Time) bool {
	ended, failed := true, (*store.Build)(nil)
	for _, need := range jobs {
		switch {
		case !slices.Contains(job.GetNeeds(), need.ConfigJob().GetName()):
		case !store.Ended(need.GetState()):
			ended = false
		case !succeeded(need) && failed == nil:
			failed = need
		}
	}
	on := job.ConfigJob().GetCondition().GetOn()
	if len(on) == 0 {
		on = []configv1.Condition_On{configv1.Condition_ON_SUCCESS}
	}
	always := slices.Contains(on, configv1.Condition_ON_ALWAYS)
	afterFailure := always || slices.Contains(on, configv1.Condition_ON_FAILURE)
	afterSuccess := always || slices.Contains(on, configv1.Condition_ON_SUCCESS)
	switch {
	case failed != nil && !afterFailure:
		leaveOut(job, now, schedulerv1.Build_REASON_NEED_FAILED, fmt.Sprintf("not run: needs %s, which %s", failed.GetJob(), became(failed)))
	case !ended:
		return false
	case failed == nil && !afterSuccess:
		leaveOut(job, now, schedulerv1.Build_REASON_CONDITION, "not run: nothing that it needs has failed")
	default:
		job.State, job.Reason, job.Message, job.Due = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, "", now
	}
	return true
}

func leaveOut(job *store.Build, now time.Time, reason schedulerv1.Build_Reason, message string) {
	job.State, job.Reason, job.Message = schedulerv1.Build_STATE_CANCELLED, reason, message
	job.EndTime, job.Due = timestamppb.New(now), time.Time{}
}

// succeeded reports whether a job that has ended lets those run that need it.
func succeeded(job *store.Build) bool {
	return job.GetState() == schedulerv1.Build_STATE_PASSED || job.GetMayFail() || leftOut(job)
}

// leftOut reports whether a job was not run because of its own `if`.
func leftOut(job *store.Build) bool { return job.GetReason() == schedulerv1.Build_REASON_CONDITION }

// became is what a job that has ended has come to, for people.
func became(job *store.Build) string {
	if job.GetReason() == schedulerv1.Build_REASON_NEED_FAILED {
		return "was not run"
	}
	return map[schedulerv1.Build_State]string{
		schedulerv1.Build_STATE_FAILED: "failed", schedulerv1.Build_STATE_ERRORED: "errored",
		schedulerv1.Build_STATE_TIMED_OUT: "timed out", schedulerv1.Build_STATE_CANCELLED: "was cancelled",
	}[job.GetState()]
}

// Ended reports whether all jobs have.
func Ended(jobs []*store.Build) bool {
	return !slices.ContainsFunc(jobs, func(job *store.Build) bool { return !store.Ended(job.GetState()) })
}

// FailsFast reports whether a job that has ended has the others cancelled.
func FailsFast(whole, job *store.Build) bool {
	return whole.Pipeline().GetFailFast() && !succeeded(job)
}

// Outlasts reports whether a job is there for what has failed: it is not cancelled
// because something has.
func Outlasts(job *store.Build) bool {
	return slices.ContainsFunc(job.ConfigJob().GetCondition().GetOn(), func(on configv1.Condition_On) bool {
		return on == configv1.Condition_ON_FAILURE || on == configv1.Condition_ON_ALWAYS
	})
}

// Total is what a build has come to once all its jobs have ended.
func Total(jobs []*store.Build) (schedulerv1.Build_State, schedulerv1.Build_Reason, string) {
	var forgiven, bad []*store.Build
	ran := false
	for _, job := range jobs {
		switch {
		case job.GetState() == schedulerv1.Build_STATE_PASSED:
			ran = true
		case leftOut(job):
		case job.GetMayFail():
			ran = ran || job.GetState() != schedulerv1.Build_STATE_CANCELLED
			forgiven = append(forgiven, job)
		default:
			bad = append(bad, job)
		}
	}
	if !ran { // what may fail has to have been tried
		bad = append(bad, forgiven...)
	}
	switch {
	case len(bad) > 0:
		state, message := worst(bad, len(jobs))
		return state, schedulerv1.Build_REASON_JOBS, message
	case !ran:
		return schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_CONDITION, "the if of no job holds"
	case len(forgiven) > 0:
		return schedulerv1.Build_STATE_PASSED, schedulerv1.Build_REASON_UNSPECIFIED,
			fmt.Sprintf("%d of %d jobs did not pass, and may fail: %s", len(forgiven), len(jobs), titles(forgiven))
	default:
		return schedulerv1.Build_STATE_PASSED, schedulerv1.Build_REASON_UNSPECIFIED, ""
	}
}

// worst is the state of a build whose jobs did not all pass, and the sentence that
// names those to look at: what was not run because of them says nothing new.
func worst(bad []*store.Build, of int) (schedulerv1.Build_State, string) {
	for _, row := range []struct {
		state schedulerv1.Build_State
		one   string
		more  string
	}{
		{schedulerv1.Build_STATE_FAILED, "failed", "failed"},
		{schedulerv1.Build_STATE_TIMED_OUT, "timed out", "timed out"},
		{schedulerv1.Build_STATE_ERRORED, "errored", "errored"},
		{schedulerv1.Build_STATE_CANCELLED, "was cancelled", "were cancelled"},
	} {
		if !slices.ContainsFunc(bad, func(job *store.Build) bool { return job.GetState() == row.state }) {
			continue
		}
		named := slices.DeleteFunc(slices.Clone(bad), func(job *store.Build) bool {
			return job.GetState() == schedulerv1.Build_STATE_CANCELLED &&
				(row.state != schedulerv1.Build_STATE_CANCELLED || job.GetReason() == schedulerv1.Build_REASON_NEED_FAILED)
		})
		same := !slices.ContainsFunc(named, func(job *store.Build) bool { return job.GetState() != row.state })
		verb := row.more
		switch {
		case !same:
			verb = "did not pass"
		case len(named) == 1:
			verb = row.one
		}
		return row.state, fmt.Sprintf("%d of %d jobs %s: %s", len(named), of, verb, titles(named))
	}
	return schedulerv1.Build_STATE_ERRORED, "a job ended in no state that is known" // a state of a newer Forge
}

// mostNamed fit a commit status.
const mostNamed = 5

func titles(jobs []*store.Build) string {
	var named []string
	for _, job := range jobs[:min(len(jobs), mostNamed)] {
		named = append(named, job.GetJob())
	}
	if more := len(jobs) - len(named); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(named, ", "), more)
	}
	return strings.Join(named, ", ")
}

// Dependents are the names of the jobs that need one, directly or not, and its own.
func Dependents(jobs []*store.Build, name string) map[string]bool {
	all := map[string]bool{name: true}
	for again := true; again; {
		again = false
		for _, job := range jobs {
			own := job.ConfigJob().GetName()
			if !all[own] && slices.ContainsFunc(job.GetNeeds(), func(need string) bool { return all[need] }) {
				all[own], again = true, true
			}
		}
	}
	return all
}
