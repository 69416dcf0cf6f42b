package store

import (
	"slices"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// claim is what one build says of the commit status that it shares with other
// builds of the same commit and context.
type claim struct {
	Build *schedulerv1.Build
	// Open says that the pull request is open, or that there is none.
	Open bool
}

// Standing is how a build stands to others of its commit and context.
type Standing = reporterv1.ReportRequest_Standing

const (
	shown     = reporterv1.ReportRequest_STANDING_UNSPECIFIED
	replaced  = reporterv1.ReportRequest_STANDING_REPLACED
	outranked = reporterv1.ReportRequest_STANDING_OUTRANKED
)

// standings are those of builds that share a commit status, by id. It shows the one
// with the strongest claim, the newest of equals. Of one pull request, or of one
// pushed ref, the newest build alone has a claim.
//
// A result, or the prospect of one, is never replaced by a build that is blocked
// or cancelled. A fork's build that nobody approved never replaces a trusted one
// of the same kind. Of equals, those of open pull requests count first, and of
// these the worst: what failed, then what has not ended, then what passed.
func standings(newestFirst []claim) map[string]Standing {
	type source struct {
		pull int32
		ref  string
	}
	all, seen := map[string]Standing{}, map[source]bool{}
	var best string
	var strongest []int
	for _, c := range newestFirst {
		from := source{pull: c.Build.GetPullRequest()}
		if from.pull == 0 {
			from.ref = c.Build.GetRef()
		}
		if seen[from] {
			all[c.Build.GetId()] = replaced
			continue
		}
		seen[from], all[c.Build.GetId()] = true, outranked
		if strength := c.strength(); best == "" || slices.Compare(strength, strongest) > 0 {
			best, strongest = c.Build.GetId(), strength
		}
	}
	if best != "" {
		all[best] = shown
	}
	return all
}

// strength orders claims, element by element.
func (c claim) strength() []int {
	b := c.Build
	isTrusted := !b.GetFork() || b.GetApprovedBy() != ""
	trusted, open, severity := rank(isTrusted), rank(c.Open), severityOf(b.GetState())
	// Whoever opens a pull request chooses its title and its base, and with them
	// whether it is skipped. An outsider's skip passes no check of a trusted build.
	if skipped(b) && isTrusted {
		severity = 1
	}
	if severity == 0 {
		return []int{0, open, trusted, 0}
	}
	return []int{1, trusted, open, severity}
}

func skipped(b *schedulerv1.Build) bool {
	return b.GetReason() == schedulerv1.Build_REASON_NO_MATCHING_PATHS || b.GetReason() == schedulerv1.Build_REASON_SKIP_ASKED
}

// severityOf is 0 for a state without a result or the prospect of one.
func severityOf(state schedulerv1.Build_State) int {
	switch state {
	case schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_TIMED_OUT:
		return 3
	case schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_STARTING, schedulerv1.Build_STATE_RUNNING:
		return 2
	case schedulerv1.Build_STATE_PASSED:
		return 1
	default:
		return 0
	}
}

func rank(holds bool) int {
	if holds {
		return 1
	}
	return 0
}
