package scheduler

import (
	"context"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// pullRequest is the newest that is known of a pull request.
type pullRequest struct {
	repositoryID int64
	number       int32
	updated      time.Time // zero: nothing is known
	closed       bool
	// moves of its head at updated. GitHub's times are in whole seconds, and
	// within one a branch may move more than once: what came before what is then
	// told by the moves alone.
	moves []move
}

type move struct{ before, after string }

// stale reports whether what an event tells was over before what is known.
func (p *pullRequest) stale(i intent) bool {
	at := i.pull.GetUpdateTime().AsTime()
	switch {
	case p.updated.IsZero() || at.After(p.updated):
		return false
	case at.Before(p.updated):
		return true
	case i.moment != offered:
		return false
	case p.closed:
		return i.event.GetAction() != "reopened"
	}
	left := slices.ContainsFunc(p.moves, func(m move) bool { return m.before == i.sha && m.after != i.sha })
	follows := len(p.moves) > 0 && p.moves[len(p.moves)-1].after == i.event.GetPullRequest().GetBefore()
	return left && !follows
}

// knows reports whether what an event tells was heard of before, and nothing since.
func (p *pullRequest) knows(i intent) bool {
	return i.pull.GetUpdateTime().AsTime().Equal(p.updated) && slices.Contains(p.moves, moveOf(i))
}

func moveOf(i intent) move { return move{i.event.GetPullRequest().GetBefore(), i.sha} }

// learn takes up what an event tells that is not stale.
func (p *pullRequest) learn(i intent) {
	at := i.pull.GetUpdateTime().AsTime()
	if at.After(p.updated) {
		p.updated, p.moves = at, nil
	}
	p.closed = i.moment != offered
	if i.moment != offered {
		return
	}
	if m := moveOf(i); !slices.Contains(p.moves, m) {
		p.moves = append(p.moves, m)
	}
}

// stopped finds the build of what an event of a pull request tells, where the
// event was heard of before and the build was cancelled, or skipped. Another delivery of the
// same does not undo that: only a delivery's body is signed. A merge happens once.
func (t *tx) stopped(ctx context.Context, i intent, pull *pullRequest) (*build, error) {
	if i.moment != merged && (i.moment != offered || !pull.knows(i)) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	prior, err := t.newestContent(ctx, i)
	if err != nil || prior == nil || prior.GetState() != schedulerv1.Build_STATE_CANCELLED {
		return nil, err
	}
	// What was superseded or closed may have come back within the second.
	final := prior.GetReason() == schedulerv1.Build_REASON_CANCEL_ASKED || prior.GetReason() == schedulerv1.Build_REASON_NO_MATCHING_PATHS
	if i.moment == offered && !final {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return prior, nil
}

// The moves as one column: before>after, separated by spaces.
func formatMoves(moves []move) string {
	var text []string
	for _, m := range moves {
		text = append(text, m.before+">"+m.after)
	}
	return strings.Join(text, " ")
}

func parseMoves(text string) []move {
	var moves []move
	for field := range strings.FieldsSeq(text) {
		before, after, _ := strings.Cut(field, ">")
		moves = append(moves, move{before, after})
	}
	return moves
}
