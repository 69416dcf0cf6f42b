package store

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// IsKept reports whether the attempt's container is kept at a time, for shells.
func (a *Attempt) IsKept(now time.Time) bool { return a.Ended && a.Kept.After(now) }

// KeepUntil has the container of a build's attempt, which ends, removed at the time that
// the build says, not before.
func KeepUntil(ctx context.Context, t *Tx, b *Build) error {
	return t.Exec(ctx, `UPDATE attempts SET kept_until = $3, stop_time = $3, stop_tries = 0, stop_asked_time = $3 WHERE build_id = $1 AND attempt = $2`,
		b.GetId(), b.GetAttempt(), sqldb.Micros(b.GetKeptUntilTime().AsTime()))
}

// RemoveKept has a kept container removed before its time; false where none is kept.
func RemoveKept(ctx context.Context, t *Tx, b *Build) (bool, error) {
	if !b.GetKeptUntilTime().AsTime().After(t.Now) {
		return false, nil
	}
	b.KeptUntilTime = timestamppb.New(t.Now)
	if err := KeepUntil(ctx, t, b); err != nil {
		return false, err
	}
	t.Wake(StopQueue)
	t.Notify(RunnerTopic(b.GetId()))
	return true, t.SaveBuild(ctx, b)
}

// CountKept counts the containers that are kept, and those of them that are of the same
// pull request as a build; 0 for a build of none.
func CountKept(ctx context.Context, t *Tx, b *Build) (all, alike int, err error) {
	err = t.QueryRowContext(ctx, `SELECT count(*), count(of.id) FROM attempts LEFT JOIN builds of
		ON of.id = attempts.build_id AND of.pull_request > 0 AND of.repository_id = $2 AND of.pull_request = $3
		WHERE kept_until > $1`, sqldb.Micros(t.Now), b.GetRepository().GetId(), b.GetPullRequest()).Scan(&all, &alike)
	return all, alike, err
}
