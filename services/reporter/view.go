package reporter

import (
	"fmt"
	"strings"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// What GitHub shows while a build has not ended, and of a build that waits for a
// person.
const (
	statePending        = "pending"
	stateQueued         = "queued"
	stateInProgress     = "in_progress"
	stateActionRequired = "action_required"
	stateInactive       = "inactive" // a deployment that is not there, or not any more
)

// view is how a state of a build shows on GitHub.
type view struct {
	status     string // of the commit status
	check      string // the check run's status, or its conclusion
	deployment string // of the deployment
	text       func(*schedulerv1.Build) string
}

// views has every state that can be reported.
// https://docs.github.com/rest/commits/statuses#create-a-commit-status
// https://docs.github.com/rest/checks/runs#create-a-check-run
// https://docs.github.com/rest/deployments/statuses#create-a-deployment-status
var views = map[schedulerv1.Build_State]view{
	schedulerv1.Build_STATE_QUEUED:    {statePending, stateQueued, stateQueued, because("Queued")},
	schedulerv1.Build_STATE_WAITING:   {statePending, stateQueued, stateQueued, because("Waiting")},
	schedulerv1.Build_STATE_BLOCKED:   {statePending, stateActionRequired, statePending, needsApproval},
	schedulerv1.Build_STATE_STARTING:  {statePending, stateInProgress, stateInProgress, placed},
	schedulerv1.Build_STATE_RUNNING:   {statePending, stateInProgress, stateInProgress, placed},
	schedulerv1.Build_STATE_PASSED:    {"success", "success", "success", passed},
	schedulerv1.Build_STATE_FAILED:    {"failure", "failure", "failure", failed},
	schedulerv1.Build_STATE_ERRORED:   {"error", "failure", "failure", errored},
	schedulerv1.Build_STATE_CANCELLED: {"error", "cancelled", "failure", cancelled},
	schedulerv1.Build_STATE_TIMED_OUT: {"error", "timed_out", "failure", timedOut},
}

// exceptions are reasons for which a cancelled build looks different: nothing is
// wrong, there was nothing to do.
var exceptions = map[schedulerv1.Build_Reason]view{
	schedulerv1.Build_REASON_NO_MATCHING_PATHS: {"success", "skipped", stateInactive, because("Skipped")},
	schedulerv1.Build_REASON_SKIP_ASKED:        {"success", "skipped", stateInactive, because("Skipped")},
	schedulerv1.Build_REASON_ALREADY_CONTAINED: {"error", "skipped", stateInactive, cancelled},
	schedulerv1.Build_REASON_CONDITION:         {"success", "skipped", stateInactive, saying("Skipped")},
	// A check that is required must not pass because what it needs has failed.
	schedulerv1.Build_REASON_NEED_FAILED: {"failure", "cancelled", stateInactive, saying("Not run")},
}

// viewOf is the view of a build's state.
func viewOf(b *schedulerv1.Build) view {
	v := views[b.GetState()]
	if b.GetReason() == schedulerv1.Build_REASON_JOBS || b.GetReason() == schedulerv1.Build_REASON_CARRIED {
		v.text = saying(wording.Value(b.GetState()))
	}
	switch b.GetState() {
	case schedulerv1.Build_STATE_CANCELLED:
	case schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_TIMED_OUT:
		if b.GetMayFail() { // what may fail must not keep anybody from merging
			text := v.text
			v.status, v.check = "success", "neutral"
			v.text = func(b *schedulerv1.Build) string { return "Failed, as it may: " + text(b) }
		}
		return v
	default:
		if b.GetTakeDownTime() != nil {
			v.deployment = stateInactive
		}
		return v
	}
	if other, ok := exceptions[b.GetReason()]; ok {
		return other
	}
	if b.GetStartTime() == nil { // no command of the deploy has run
		v.deployment = stateInactive
	}
	return v
}

// display is what GitHub shows of a target: a state in GitHub's word for the
// kind, a description and a link. The zero value is not known.
type display struct{ state, description, url string }

// unfinished reports whether the build has not ended, so that something else
// will be shown.
func (d display) unfinished() bool {
	return d.state == statePending || d.state == stateQueued || d.state == stateInProgress
}

// displayOf is what GitHub shows of a build by one kind of report. Beside the check
// run of the build that is shown, that of another says which pull request it is for.
func displayOf(kind reporterv1.Target_Kind, r *reporterv1.ReportRequest) display {
	b := r.GetBuild()
	v, c := viewOf(b), channelOf(kind)
	text := withTests(v.text(b), r)
	if r.GetStanding() == outranked && kind == reporterv1.Target_KIND_CHECK_RUN {
		text = origin(b) + ": " + text
	}
	return display{c.view(v), c.line(text), b.GetUrl()}
}

const (
	shown     = reporterv1.ReportRequest_STANDING_UNSPECIFIED
	outranked = reporterv1.ReportRequest_STANDING_OUTRANKED
)

// origin is what a build is for, where several share a commit.
func origin(b *schedulerv1.Build) string {
	if number := b.GetPullRequest(); number != 0 {
		return fmt.Sprintf("#%d", number)
	}
	return b.GetRef()
}

// setDesired sets what GitHub is to show of a build. A check run or a deployment
// whose state says the same and will change is not worth a call for another text
// alone; the status has it.
func (t *target) setDesired(r *reporterv1.ReportRequest) {
	desired := displayOf(t.kind, r)
	if channelOf(t.kind).perBuild && desired.unfinished() && desired.state == t.desired.state {
		if before, err := t.storedReport(); err == nil && (before.GetStanding() == outranked) == (r.GetStanding() == outranked) {
			return
		}
	}
	t.desired = desired
}

// environment is what a context deploys to; "" where it is none of a deploy. It
// serves what an older Forge has stored, whose builds do not say it themselves.
func environment(name string) string {
	to, _ := strings.CutPrefix(name, "forge/deploy-")
	if to == name {
		return ""
	}
	return to
}
