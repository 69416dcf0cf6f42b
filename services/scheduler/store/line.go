package store

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	// lineLength is how much of the queue is looked at to say where a build stands.
	lineLength = 1000
	// usualOf is how many of the newest builds say how long one usually takes.
	usualOf = 11
	// usualWithin is how far back these are looked for.
	usualWithin = 200
)

// sort is what builds have in common that take as long as each other.
type sort struct {
	repository, job string
	action          schedulerv1.Build_Action
}

// inLine is one build, or job, that has a place or waits for one.
type inLine struct {
	lane
	sort
	id, whole string
	since     int64 // of what has a place: when it was placed, in microseconds
}

func scanInLine(row sqldb.Row) (inLine, error) {
	var l inLine
	err := row.Scan(&l.priority, &l.repositoryID, &l.head, &l.repository, &l.job, &l.action, &l.id, &l.whole, &l.since)
	return l, err
}

// Line says where in the queue a build that ReadWhole returned stands, or the first of
// its jobs; nil where none of them is in it.
func Line(ctx context.Context, s *Store, b *schedulerv1.Build, capacity int) (*schedulerv1.Line, error) {
	if b.GetState() != schedulerv1.Build_STATE_QUEUED && !slices.ContainsFunc(b.GetJobs(), func(job *schedulerv1.Job) bool {
		return job.GetState() == schedulerv1.Build_STATE_QUEUED
	}) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	id, f := b.GetId(), forecast{s.DB.Read(), s.Now()}
	waiting, err := f.queue(ctx)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	if len(waiting) > lineLength {
		return &schedulerv1.Line{Capacity: int32(capacity)}, nil //nolint:gosec // a count of containers
	}
	if !slices.ContainsFunc(waiting, func(l inLine) bool { return l.is(id) }) {
		return nil, nil //nolint:nilnil // as above: it waits until it is tried again
	}
	placed, err := f.placed(ctx)
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	line, err := f.foresee(ctx, waiting, placed, id, max(capacity, 1))
	return line, sqldb.Kind(err)
}

// is reports whether it is the build, or a job of it.
func (l inLine) is(id string) bool { return l.id == id || l.whole == id }

// forecast is of the queue as it is.
type forecast struct {
	sqldb.Querier
	now time.Time
}

func (f forecast) queue(ctx context.Context) ([]inLine, error) {
	return sqldb.Collect(ctx, f, scanInLine, `SELECT priority, repository_id, number, repository, job, action, id, part_of, 0 FROM builds
		WHERE number IN (SELECT number FROM (`+startable+` LIMIT $3) found) ORDER BY number`,
		int32(schedulerv1.Build_STATE_QUEUED), sqldb.Micros(f.now), lineLength+1)
}

func (f forecast) placed(ctx context.Context) ([]inLine, error) {
	return sqldb.Collect(ctx, f, scanInLine, `SELECT priority, repository_id, number, repository, job, action, id, part_of, asked_time
		FROM attempts CROSS JOIN builds WHERE NOT attempts.ended AND builds.id = attempts.build_id`)
}

// foresee plays the queue through until the build, or the first of its jobs, is placed:
// each place is free once what has it has taken as long as its like usually does.
func (f forecast) foresee(ctx context.Context, waiting, placed []inLine, id string, capacity int) (*schedulerv1.Line, error) {
	type place struct {
		repositoryID int64
		free         time.Time
	}
	now, shares, known := f.now, map[int64]int{}, false
	usual := map[sort]time.Duration{}
	var places []place
	take := func(l inLine, since time.Time) error {
		took, looked := usual[l.sort]
		if !looked {
			var err error
			if took, err = f.usual(ctx, l.sort); err != nil {
				return err
			}
			usual[l.sort], known = took, known || took > 0
		}
		free := since.Add(took)
		if free.Before(now) { // it takes longer than it uses to
			free = now
		}
		places = append(places, place{l.repositoryID, free})
		shares[l.repositoryID]++
		return nil
	}
	for _, l := range placed {
		if err := take(l, sqldb.Time(l.since)); err != nil {
			return nil, err
		}
	}
	heads, rest := lines(waiting)
	for number := int32(1); ; number++ {
		at := now
		if len(places) >= capacity {
			soonest := slices.MinFunc(places, func(a, b place) int { return a.free.Compare(b.free) })
			at = soonest.free
			shares[soonest.repositoryID]--
			n := slices.Index(places, soonest)
			places = slices.Delete(places, n, n+1)
		}
		next := nextLane(heads, shares)
		found := rest[next.line()][0]
		if found.is(id) {
			line := &schedulerv1.Line{Place: number, Capacity: int32(capacity)} //nolint:gosec // a count of containers
			if known {
				line.EstimateTime = timestamppb.New(at.Truncate(time.Second))
			}
			return line, nil
		}
		if err := take(found, at); err != nil {
			return nil, err
		}
		heads = slices.DeleteFunc(heads, func(l lane) bool { return l == next })
		if rest[next.line()] = rest[next.line()][1:]; len(rest[next.line()]) > 0 {
			heads = append(heads, rest[next.line()][0].lane)
		}
	}
}

// lineKey is what all of a lane have in common.
type lineKey struct {
	priority     int
	repositoryID int64
}

func (l lane) line() lineKey { return lineKey{l.priority, l.repositoryID} }

// lines are the lanes of a queue that is in the order of numbers, and what is in each.
func lines(waiting []inLine) (heads []lane, all map[lineKey][]inLine) {
	all = map[lineKey][]inLine{}
	for _, l := range waiting {
		if len(all[l.line()]) == 0 {
			heads = append(heads, l.lane)
		}
		all[l.line()] = append(all[l.line()], l)
	}
	return heads, all
}

// usual is the median of how long the newest builds of a sort took that ran; 0 where none did.
func (f forecast) usual(ctx context.Context, of sort) (time.Duration, error) {
	took, err := sqldb.Collect(ctx, f, func(row sqldb.Row) (took int64, err error) { return took, row.Scan(&took) },
		`SELECT duration FROM (SELECT duration, number, action, job FROM builds WHERE repository = $1 AND job = $2 ORDER BY number DESC LIMIT $4) newest
			WHERE action = $3 AND duration > 0 ORDER BY number DESC LIMIT $5`,
		of.repository, of.job, int32(of.action), usualWithin, usualOf)
	if err != nil || len(took) == 0 {
		return 0, err
	}
	slices.Sort(took)
	return time.Duration(took[(len(took)-1)/2]) * time.Microsecond, nil
}
