package store

import (
	"context"
	"database/sql"
	"errors"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Groups is a change of concurrency groups. A build is in one while it waits for its turn,
// and has it, until nothing of it runs any more.
type Groups struct{ *Tx }

// Lock has others wait who change groups of the repository.
func (g Groups) Lock(ctx context.Context, repositoryID int64) error {
	if err := g.Exec(ctx, `INSERT INTO concurrency_locks (repository_id) VALUES ($1) ON CONFLICT DO NOTHING`, repositoryID); err != nil {
		return err
	}
	var one int64
	return g.QueryRowContext(ctx, `SELECT repository_id FROM concurrency_locks WHERE repository_id = $1`+g.Locked, repositoryID).Scan(&one)
}

// Members locks the builds of a group, the oldest first.
func (g Groups) Members(ctx context.Context, repositoryID int64, group string) ([]*Build, error) {
	return sqldb.Collect(ctx, g, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND concurrency = $2 AND concurrency <> '' ORDER BY number`+g.Locked, repositoryID, group)
}

// pushesAtMost is how many of the newest builds of pushes to a branch, or of tags, are
// looked at for one that is newer than another.
const pushesAtMost = 20

// Pushes are the newest builds of pushes to the branch of a build, whether they have ended
// or not, the newest first; of a tag, those of all tags.
func (g Groups) Pushes(ctx context.Context, b *Build) ([]*Build, error) {
	// The index of lists finds them without their rows, of which a branch may have many.
	return sqldb.Collect(ctx, g, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE number IN (SELECT number FROM builds
		WHERE repository = $1 AND branch = $2 AND part_of = '' AND action = $3 ORDER BY number DESC LIMIT $4) ORDER BY number DESC`,
		b.RepositoryKey(), b.branch(), int32(schedulerv1.Build_ACTION_PUSH), pushesAtMost)
}

// Join puts a build that is stored into a group; "" takes it out of its own.
func (g Groups) Join(ctx context.Context, buildID, group string) error {
	return g.Exec(ctx, `UPDATE builds SET concurrency = $2 WHERE id = $1`, buildID, group)
}

// EndedIn is the group of a build that has ended; "" where it has not, or is in none.
func (g Groups) EndedIn(ctx context.Context, buildID string) (repositoryID int64, group string, err error) {
	err = g.QueryRowContext(ctx, `SELECT repository_id, concurrency FROM builds WHERE id = $1 AND concurrency <> '' AND state >= $2`, buildID, int32(firstEnded)).
		Scan(&repositoryID, &group)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", nil
	}
	return repositoryID, group, err
}

// EndedMembers names builds that have ended and are in a group.
func (s *Store) EndedMembers(ctx context.Context) ([]string, error) {
	ids, err := sqldb.Collect(ctx, s.DB.Read(), scanID, `SELECT id FROM builds WHERE concurrency <> '' AND state >= $1 ORDER BY number`, int32(firstEnded))
	return ids, sqldb.Kind(err)
}

// Unstopped are the attempts of a build and its jobs whose container may be there.
func (g Groups) Unstopped(ctx context.Context, wholeID string) ([]*Attempt, error) {
	return sqldb.Collect(ctx, g, scanAttempt, `SELECT `+AttemptColumns+` FROM attempts
		WHERE (NOT ended OR stop_time < 9223372036854775807 AND kept_until = 0)
		AND build_id IN (SELECT id FROM builds WHERE id = $1 UNION ALL SELECT id FROM builds WHERE part_of = $1 AND part_of <> '')`, wholeID)
}
