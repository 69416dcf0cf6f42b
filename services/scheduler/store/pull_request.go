package store

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// PullRequest is the newest that is known of a pull request.
type PullRequest struct {
	repositoryID int64
	Number       int32
	Updated      time.Time // zero: nothing is known
	closed       bool
	// headMoves of its head at updated. GitHub's times are in whole seconds, and
	// within one a branch may move more than once: what came before what is then
	// told by the moves alone.
	headMoves []headMove
}

type headMove struct{ before, after string }

// Stale reports whether what an event tells was over before what is known.
func (p *PullRequest) Stale(i trigger.Intent) bool {
	at := i.Pull.GetUpdateTime().AsTime()
	switch {
	case p.Updated.IsZero() || at.After(p.Updated):
		return false
	case at.Before(p.Updated):
		return true
	case i.Kind != trigger.PullRequestOffered:
		return false
	case p.closed:
		return i.Event.GetAction() != "reopened"
	}
	left := slices.ContainsFunc(p.headMoves, func(m headMove) bool { return m.before == i.Sha && m.after != i.Sha })
	follows := len(p.headMoves) > 0 && p.headMoves[len(p.headMoves)-1].after == i.Event.GetPullRequest().GetBefore()
	return left && !follows
}

// Forgotten reports whether what an event tells is so old that it may have been known
// once: nothing is known of the pull request, and what was before a time is kept no
// longer.
func (p *PullRequest) Forgotten(i trigger.Intent, before time.Time) bool {
	return p.Updated.IsZero() && i.Pull.GetUpdateTime().AsTime().Before(before)
}

// Repeats reports whether what an event tells was heard of before, and nothing since.
func (p *PullRequest) Repeats(i trigger.Intent) bool {
	return i.Pull.GetUpdateTime().AsTime().Equal(p.Updated) && slices.Contains(p.headMoves, moveOf(i))
}

// Ends reports whether what an event tells is the end of a pull request that was heard
// of before, and nothing since. It is told with a later time where something else was
// changed meanwhile.
func (p *PullRequest) Ends(i trigger.Intent) bool {
	end := i.Pull.GetCloseTime()
	return p.closed && (i.Pull.GetUpdateTime().AsTime().Equal(p.Updated) || end != nil && !end.AsTime().After(p.Updated))
}

// moveOf is what an event moves: the head, the base below it, or a label, whose names
// are escaped as the column needs it.
func moveOf(i trigger.Intent) headMove {
	event := i.Event.GetPullRequest()
	if from := event.GetPreviousBaseRef(); from != "" {
		return headMove{"base:" + url.QueryEscape(from) + ":" + url.QueryEscape(i.Pull.GetBase().GetRef()), i.Sha}
	}
	switch action := i.Event.GetAction(); action {
	case "labeled", "unlabeled", "ready_for_review", "converted_to_draft":
		return headMove{action + ":" + url.QueryEscape(event.GetLabel()), i.Sha}
	}
	return headMove{event.GetBefore(), i.Sha}
}

// Update takes up what an event tells that is not stale.
func (p *PullRequest) Update(i trigger.Intent) {
	at := i.Pull.GetUpdateTime().AsTime()
	if at.After(p.Updated) {
		p.Updated, p.headMoves = at, nil
	}
	p.closed = i.Kind != trigger.PullRequestOffered
	if i.Kind != trigger.PullRequestOffered {
		return
	}
	if m := moveOf(i); !slices.Contains(p.headMoves, m) {
		p.headMoves = append(p.headMoves, m)
	}
}

// Stopped finds the build of what an event of a pull request tells, where the
// event was heard of before and the build was cancelled, or skipped. Another delivery of the
// same does not undo that: only a delivery's body is signed. A merge happens once.
func (t *Tx) Stopped(ctx context.Context, i trigger.Intent, pull *PullRequest) (*Build, error) {
	if i.Kind != trigger.PullRequestMerged && (i.Kind != trigger.PullRequestOffered || !pull.Repeats(i)) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	prior, err := t.NewestContent(ctx, i)
	if err != nil || prior == nil || prior.GetState() != schedulerv1.Build_STATE_CANCELLED {
		return nil, err
	}
	// What was superseded or closed may have come back within the second.
	final := slices.Contains([]schedulerv1.Build_Reason{
		schedulerv1.Build_REASON_CANCEL_ASKED, schedulerv1.Build_REASON_NO_MATCHING_PATHS, schedulerv1.Build_REASON_SKIP_ASKED,
		schedulerv1.Build_REASON_JOBS, schedulerv1.Build_REASON_CONDITION,
	}, prior.GetReason())
	if i.Kind == trigger.PullRequestOffered && !final {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return prior, nil
}

// The moves as one column: before>after, separated by spaces.
func formatMoves(moves []headMove) string {
	var text []string
	for _, m := range moves {
		text = append(text, m.before+">"+m.after)
	}
	return strings.Join(text, " ")
}

func parseMoves(text string) []headMove {
	var moves []headMove
	for field := range strings.FieldsSeq(text) {
		before, after, _ := strings.Cut(field, ">")
		moves = append(moves, headMove{before, after})
	}
	return moves
}
