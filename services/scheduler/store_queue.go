package scheduler

import (
	"cmp"
	"context"
	"slices"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Priorities: the lowest is placed first.
const (
	deployPriority = iota
	mergeGroupPriority
	testPriority
)

// priority is that of a new build.
func (b *build) priority() int {
	switch {
	case b.GetEnvironment() != "":
		return deployPriority
	case strings.HasPrefix(b.GetRef(), "refs/heads/gh-readonly-queue/"): // GitHub's name for merge groups
		return mergeGroupPriority
	default:
		return testPriority
	}
}

// startable locks the builds to start now: those whose start was begun, by
// somebody who is gone or with an engine that did not answer, then as many of the
// queue as there are places. What was begun keeps its place: its container may be
// there. Replicas take turns, by the lock on the places.
func (t *tx) startable(ctx context.Context, capacity, limit int) ([]*build, error) {
	var one int
	if err := t.QueryRowContext(ctx, `SELECT id FROM places`+t.locked).Scan(&one); err != nil {
		return nil, err
	}
	places, err := t.places(ctx)
	if err != nil {
		return nil, err
	}
	var found []*build
	shares := map[int64]int{}
	for _, p := range places {
		shares[p.repositoryID]++
		if !p.due || len(found) == limit {
			continue
		}
		begun, err := t.claimable(ctx, p.number)
		if err != nil {
			return nil, err
		}
		found = append(found, begun...)
	}
	taken, err := t.fairly(ctx, min(capacity-len(places), limit-len(found)), shares)
	return append(found, taken...), err
}

// place is one that is taken: by a build whose attempt has not ended.
type place struct {
	number, repositoryID int64
	due                  bool // it is to be started, again
}

func scanPlace(row scanner) (place, error) {
	var p place
	err := row.Scan(&p.number, &p.repositoryID, &p.due)
	return p, err
}

func (t *tx) places(ctx context.Context) ([]place, error) {
	// The cross join has SQLite begin with the few attempts.
	return collect(ctx, t, scanPlace, `SELECT builds.number, builds.repository_id, builds.state IN ($1, $2) AND builds.due_time <= $3
		FROM attempts CROSS JOIN builds WHERE NOT attempts.ended AND builds.id = attempts.build_id ORDER BY builds.priority, builds.number`,
		int32(schedulerv1.Build_STATE_QUEUED), int32(schedulerv1.Build_STATE_STARTING), sqldb.Micros(t.now))
}

// claimable locks a build to be started, unless another change is just being made
// to it, such as a cancellation.
func (t *tx) claimable(ctx context.Context, number int64) ([]*build, error) {
	return collect(ctx, t, scanBuild, `SELECT `+buildColumns+` FROM builds WHERE number = $1 AND state IN ($2, $3)`+t.skipLocked,
		number, int32(schedulerv1.Build_STATE_QUEUED), int32(schedulerv1.Build_STATE_STARTING))
}

// line is the queue of one repository at one priority, by the number of the
// build at its head.
type line struct {
	priority           int
	repositoryID, head int64
}

func scanLine(row scanner) (line, error) {
	var l line
	err := row.Scan(&l.priority, &l.repositoryID, &l.head)
	return l, err
}

// fairly takes up to free builds from the queue and counts them in shares: of
// the first priority there is, each time from the repository that has the fewest
// places, among those from the one whose build is the oldest.
func (t *tx) fairly(ctx context.Context, free int, shares map[int64]int) ([]*build, error) {
	if free <= 0 {
		return nil, nil
	}
	lines, err := t.lines(ctx)
	if err != nil {
		return nil, err
	}
	var taken []*build
	for len(lines) > 0 {
		next := slices.MinFunc(lines, func(a, b line) int {
			return cmp.Or(cmp.Compare(a.priority, b.priority),
				cmp.Compare(shares[a.repositoryID], shares[b.repositoryID]), cmp.Compare(a.head, b.head))
		})
		found, err := t.claimable(ctx, next.head)
		if err != nil {
			return nil, err
		}
		taken = append(taken, found...)
		shares[next.repositoryID] += len(found)
		if len(taken) == free {
			break
		}
		rest, err := collect(ctx, t, scanLine, fresh+` AND priority = $3 AND repository_id = $4 AND builds.number > $5 ORDER BY builds.number LIMIT 1`,
			int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(t.now), next.priority, next.repositoryID, next.head)
		if err != nil {
			return nil, err
		}
		lines = append(slices.DeleteFunc(lines, func(l line) bool { return l == next }), rest...)
	}
	return taken, nil
}

// fresh finds what can be started now and was not begun.
const fresh = `SELECT priority, repository_id, builds.number FROM builds WHERE state = $1 AND due_time <= $2
	AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.build_id = builds.id AND NOT ended)`

// lines are all that have builds to start now. It goes from line to line, not
// from build to build, each time with a step into the index.
func (t *tx) lines(ctx context.Context) ([]line, error) {
	const first = `(SELECT number FROM (` + fresh
	return collect(ctx, t, scanLine, `WITH RECURSIVE heads (head) AS (
			SELECT `+first+` ORDER BY priority, repository_id, builds.number LIMIT 1) least)
			UNION ALL
			SELECT COALESCE(
				`+first+` AND priority = passed.priority AND repository_id > passed.repository_id ORDER BY repository_id, builds.number LIMIT 1) least),
				`+first+` AND priority > passed.priority ORDER BY priority, repository_id, builds.number LIMIT 1) least))
			FROM heads CROSS JOIN builds passed WHERE passed.number = head
		)
		SELECT priority, repository_id, number FROM heads CROSS JOIN builds WHERE number = head`,
		int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(t.now))
}
