package store

import (
	"cmp"
	"context"
	"slices"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Priorities: the lowest is placed first. One that is run again goes before a first
// run of its own repository alone: of others it takes no more than its fair share.
const (
	expeditedPriority = iota - 1
	deployPriority
	mergeGroupPriority
	againPriority
	testPriority
)

// priority is that of a build as it is now.
func (b *Build) priority() int {
	switch {
	case b.GetExpeditedBy() != "":
		return expeditedPriority
	case b.GetEnvironment() != "" && !trigger.IsPreview(b.GetAction()):
		return deployPriority
	case strings.HasPrefix(b.GetRef(), "refs/heads/gh-readonly-queue/"): // GitHub's name for merge groups
		return mergeGroupPriority
	case b.GetRetryOf() != "":
		return againPriority
	default:
		return testPriority
	}
}

// Startable locks the builds to start now: those whose start was begun, by
// somebody who is gone or with an engine that did not answer, then as many of the
// queue as there are places. What was begun keeps its place: its container may be
// there. Replicas take turns, by the lock on the places.
func (t *Tx) Startable(ctx context.Context, capacity, limit int) ([]*Build, error) {
	var one int
	if err := t.QueryRowContext(ctx, `SELECT id FROM places`+t.Locked).Scan(&one); err != nil {
		return nil, err
	}
	places, err := slots(ctx, t)
	if err != nil {
		return nil, err
	}
	var found []*Build
	shares := map[int64]int{}
	for _, p := range places {
		shares[p.repositoryID]++
		if !p.due || len(found) == limit {
			continue
		}
		begun, err := claimable(ctx, t, p.number)
		if err != nil {
			return nil, err
		}
		found = append(found, begun...)
	}
	taken, err := fairShare(ctx, t, min(capacity-len(places), limit-len(found)), shares)
	return append(found, taken...), err
}

// slot is one that is taken: by a build whose attempt has not ended.
type slot struct {
	number, repositoryID int64
	due                  bool // it is to be started, again
}

func scanSlot(row sqldb.Row) (slot, error) {
	var p slot
	err := row.Scan(&p.number, &p.repositoryID, &p.due)
	return p, err
}

func slots(ctx context.Context, t *Tx) ([]slot, error) {
	// The cross join has SQLite begin with the few attempts.
	return sqldb.Collect(ctx, t, scanSlot, `SELECT builds.number, builds.repository_id, builds.state IN ($1, $2) AND builds.due_time <= $3
		FROM attempts CROSS JOIN builds WHERE NOT attempts.ended AND builds.id = attempts.build_id ORDER BY builds.priority, builds.number`,
		int32(schedulerv1.Build_STATE_QUEUED), int32(schedulerv1.Build_STATE_STARTING), sqldb.Micros(t.Now))
}

// claimable locks a build to be started, unless another change is just being made
// to it, such as a cancellation.
func claimable(ctx context.Context, t *Tx, number int64) ([]*Build, error) {
	return sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE number = $1 AND state IN ($2, $3)`+t.SkipLocked,
		number, int32(schedulerv1.Build_STATE_QUEUED), int32(schedulerv1.Build_STATE_STARTING))
}

// lane is the queue of one repository at one priority, by the number of the
// build at its head.
type lane struct {
	priority           int
	repositoryID, head int64
}

func scanLane(row sqldb.Row) (lane, error) {
	var l lane
	err := row.Scan(&l.priority, &l.repositoryID, &l.head)
	return l, err
}

// nextLane is the one whose head is placed next: of the first priority there is that
// of the repository with the fewest places, among those of the one whose build is the
// oldest. What that repository runs again goes before.
func nextLane(lines []lane, shares map[int64]int) lane {
	class := func(l lane) int { return min(l.priority, againPriority) }
	first := slices.MinFunc(lines, func(a, b lane) int {
		return cmp.Or(cmp.Compare(class(a), class(b)),
			cmp.Compare(shares[a.repositoryID], shares[b.repositoryID]), cmp.Compare(a.head, b.head))
	})
	for _, l := range lines {
		if l.repositoryID == first.repositoryID && l.priority < first.priority {
			first = l
		}
	}
	return first
}

// fairShare takes up to free builds from the queue, and counts them in shares.
func fairShare(ctx context.Context, t *Tx, free int, shares map[int64]int) ([]*Build, error) {
	if free <= 0 {
		return nil, nil
	}
	lines, err := lanes(ctx, t)
	if err != nil {
		return nil, err
	}
	var taken []*Build
	for len(lines) > 0 {
		next := nextLane(lines, shares)
		found, err := claimable(ctx, t, next.head)
		if err != nil {
			return nil, err
		}
		taken = append(taken, found...)
		shares[next.repositoryID] += len(found)
		if len(taken) == free {
			break
		}
		rest, err := sqldb.Collect(ctx, t, scanLane, startable+` AND priority = $3 AND repository_id = $4 AND builds.number > $5 ORDER BY builds.number LIMIT 1`,
			int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(t.Now), next.priority, next.repositoryID, next.head)
		if err != nil {
			return nil, err
		}
		lines = append(slices.DeleteFunc(lines, func(l lane) bool { return l == next }), rest...)
	}
	return taken, nil
}

// startable finds what can be started now and was not begun.
const startable = `SELECT priority, repository_id, builds.number FROM builds WHERE state = $1 AND due_time <= $2
	AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.build_id = builds.id AND NOT ended)`

// lanes are all that have builds to start now. It goes from line to line, not
// from build to build, each time with a step into the index.
func lanes(ctx context.Context, t *Tx) ([]lane, error) {
	const first = `(SELECT number FROM (` + startable
	return sqldb.Collect(ctx, t, scanLane, `WITH RECURSIVE heads (head) AS (
			SELECT `+first+` ORDER BY priority, repository_id, builds.number LIMIT 1) least)
			UNION ALL
			SELECT COALESCE(
				`+first+` AND priority = passed.priority AND repository_id > passed.repository_id ORDER BY repository_id, builds.number LIMIT 1) least),
				`+first+` AND priority > passed.priority ORDER BY priority, repository_id, builds.number LIMIT 1) least))
			FROM heads CROSS JOIN builds passed WHERE passed.number = head
		)
		SELECT priority, repository_id, number FROM heads CROSS JOIN builds WHERE number = head`,
		int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(t.Now))
}
