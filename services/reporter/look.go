package reporter

import (
	"strings"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// What GitHub shows while a build has not ended, and of a build that waits for a
// person.
const (
	pending        = "pending"
	waits          = "queued"
	runs           = "in_progress"
	actionRequired = "action_required"
	inactive       = "inactive" // a deployment that is not there, or not any more
)

// look is how a state of a build shows on GitHub.
type look struct {
	status     string // of the commit status
	check      string // the check run's status, or its conclusion
	deployment string // of the deployment
	text       func(*schedulerv1.Build) string
}

// looks has every state that can be told.
// https://docs.github.com/rest/commits/statuses#create-a-commit-status
// https://docs.github.com/rest/checks/runs#create-a-check-run
// https://docs.github.com/rest/deployments/statuses#create-a-deployment-status
var looks = map[schedulerv1.Build_State]look{
	schedulerv1.Build_STATE_QUEUED:    {pending, waits, waits, because("Queued")},
	schedulerv1.Build_STATE_WAITING:   {pending, waits, waits, because("Waiting")},
	schedulerv1.Build_STATE_BLOCKED:   {pending, actionRequired, waits, always("Needs approval: comes from a fork")},
	schedulerv1.Build_STATE_STARTING:  {pending, runs, runs, always("Running")},
	schedulerv1.Build_STATE_RUNNING:   {pending, runs, runs, always("Running")},
	schedulerv1.Build_STATE_PASSED:    {"success", "success", "success", passed},
	schedulerv1.Build_STATE_FAILED:    {"failure", "failure", "failure", failed},
	schedulerv1.Build_STATE_ERRORED:   {"error", "failure", "failure", errored},
	schedulerv1.Build_STATE_CANCELLED: {"error", "cancelled", "failure", cancelled},
	schedulerv1.Build_STATE_TIMED_OUT: {"error", "timed_out", "failure", timedOut},
}

// exceptions are reasons for which a cancelled build looks different: nothing is
// wrong, there was nothing to do.
var exceptions = map[schedulerv1.Build_Reason]look{
	schedulerv1.Build_REASON_NO_MATCHING_PATHS: {"success", "skipped", inactive, because("Skipped")},
	schedulerv1.Build_REASON_ALREADY_CONTAINED: {"error", "skipped", inactive, cancelled},
}

func lookOf(b *schedulerv1.Build) look {
	l := looks[b.GetState()]
	if b.GetState() != schedulerv1.Build_STATE_CANCELLED {
		return l
	}
	if other, ok := exceptions[b.GetReason()]; ok {
		return other
	}
	if b.GetStartTime() == nil { // no command of the deploy has run
		l.deployment = inactive
	}
	return l
}

// shown is what GitHub shows of a target. The zero value is not known.
type shown struct{ state, description, url string }

// unfinished: the build has not ended, and something else will be shown.
func (s shown) unfinished() bool {
	return s.state == pending || s.state == waits || s.state == runs
}

// showing is what GitHub is to show of a build.
func showing(kind reporterv1.Target_Kind, b *schedulerv1.Build) shown {
	l := lookOf(b)
	state := map[reporterv1.Target_Kind]string{
		reporterv1.Target_KIND_STATUS:     l.status,
		reporterv1.Target_KIND_CHECK_RUN:  l.check,
		reporterv1.Target_KIND_DEPLOYMENT: l.deployment,
	}[kind]
	return shown{state, cut(oneLine(l.text(b)), maxDescription), b.GetUrl()}
}

// show sets what GitHub is to show. Another text alone is not worth a call where
// the state says the same and will change; the status has it.
func (t *target) show(b *schedulerv1.Build) {
	want := showing(t.kind, b)
	if t.kind != reporterv1.Target_KIND_STATUS && want.unfinished() && want.state == t.want.state {
		return
	}
	t.want = want
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

// short is a sha as people read it.
func short(sha string) string { return sha[:min(7, len(sha))] }
