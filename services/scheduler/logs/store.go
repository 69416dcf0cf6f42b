package logs

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Archive is the log of an attempt that has ended, with what is still to be done
// about it.
type Archive struct {
	BuildID string
	Attempt int32
	blob    string // empty: the log is all in log_chunks
	frames  []byte // see FrameIndex
	old     bool   // the blob, then the row is to be removed
	tries   int
}

const archiveColumns = `build_id, attempt, blob, frames, old, tries`

func scanArchive(row sqldb.Row) (Archive, error) {
	var a Archive
	err := row.Scan(&a.BuildID, &a.Attempt, &a.blob, &a.frames, &a.old, &a.tries)
	return a, err
}

// archived is where the log of an attempt was moved to; false where it was not.
func (l *Service) archived(ctx context.Context, buildID string, number int32) (Archive, bool, error) {
	a, err := scanArchive(l.store.DB.Read().QueryRowContext(ctx, `SELECT `+archiveColumns+` FROM archives
		WHERE build_id = $1 AND attempt = $2 AND blob <> '' AND NOT old`, buildID, number))
	if errors.Is(err, sql.ErrNoRows) {
		return Archive{}, false, nil
	}
	return a, err == nil, sqldb.Kind(err)
}

// ArchiveLater has the log of an attempt that ends moved.
func ArchiveLater(ctx context.Context, t *store.Tx, buildID string, number int32) error {
	return t.Exec(ctx, `INSERT INTO archives (`+archiveColumns+`, due_time, end_time) VALUES ($1, $2, '', $3, $4, 0, $5, $6) ON CONFLICT DO NOTHING`,
		buildID, number, []byte{}, false, sqldb.Micros(t.Now.Add(ArchiveAfter)), sqldb.Micros(t.Now))
}

// ForgetLogs has nobody read the logs of a build any more and what was archived
// of them removed.
func ForgetLogs(ctx context.Context, t *store.Tx, buildID string) error {
	t.Wake(store.ArchiveQueue)
	return errors.Join(
		t.Exec(ctx, `DELETE FROM log_chunks WHERE build_id = $1`, buildID),
		t.Exec(ctx, `DELETE FROM log_lines WHERE build_id = $1`, buildID),
		t.Exec(ctx, `UPDATE archives SET old = $2, due_time = $3, tries = 0 WHERE build_id = $1 AND NOT old`, buildID, true, sqldb.Micros(t.Now)),
	)
}

func (l *Service) claimArchives(ctx context.Context, limit int) ([]Archive, error) {
	return store.Claim(ctx, l.store, limit, scanArchive, `SELECT `+archiveColumns+` FROM archives
		WHERE due_time <= $1 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *store.Tx, c Archive, until time.Time) error {
		return archiveAgain(ctx, t, c, until, c.tries)
	})
}

// renewArchive keeps a claimed archive while a large log is moved.
func (l *Service) renewArchive(ctx context.Context, c Archive) error {
	return l.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `UPDATE archives SET due_time = $3 WHERE build_id = $1 AND attempt = $2 AND due_time < $4 AND old = $5`,
			c.BuildID, c.Attempt, sqldb.Micros(t.Now.Add(due.Lease)), int64(store.Never), c.old)
	})
}

// archiveAgain says when there is something to do again, the zero time being
// never; what became old meanwhile is due as it is.
func archiveAgain(ctx context.Context, t *store.Tx, c Archive, again time.Time, tries int) error {
	return t.Exec(ctx, `UPDATE archives SET due_time = $3, tries = $4 WHERE build_id = $1 AND attempt = $2 AND old = $5`,
		c.BuildID, c.Attempt, store.DueMicros(again), tries, c.old)
}

// ArchiveMoved stores where a log was moved to; false where somebody else has
// moved it, or nobody reads it any more.
func ArchiveMoved(ctx context.Context, t *store.Tx, c Archive) (bool, error) {
	moved, err := t.ExecContext(ctx, `UPDATE archives SET blob = $3, frames = $4 WHERE build_id = $1 AND attempt = $2 AND blob = '' AND NOT old`,
		c.BuildID, c.Attempt, c.blob, c.frames)
	if err != nil {
		return false, err
	}
	n, err := moved.RowsAffected()
	return n > 0, err
}

// chunksRemoved bounds a transaction: what it removes is as much as a few
// seconds of printing.
const chunksRemoved = 64

// removeChunks removes some chunks of a log that was moved, and reports whether
// there are more.
func removeChunks(ctx context.Context, t *store.Tx, buildID string, number int32) (more bool, err error) {
	removed, err := t.ExecContext(ctx, `DELETE FROM log_chunks WHERE build_id = $1 AND attempt = $2 AND position IN (
		SELECT position FROM log_chunks WHERE build_id = $1 AND attempt = $2 ORDER BY position LIMIT $3)`, buildID, number, chunksRemoved)
	if err != nil {
		return false, err
	}
	n, err := removed.RowsAffected()
	if err != nil {
		return false, err
	}
	return n == chunksRemoved, t.Exec(ctx, `DELETE FROM log_lines WHERE build_id = $1 AND attempt = $2
		AND position < COALESCE((SELECT min(position) FROM log_chunks WHERE build_id = $1 AND attempt = $2), $3)`, buildID, number, int64(math.MaxInt64))
}

func removeArchive(ctx context.Context, t *store.Tx, c Archive) error {
	return t.Exec(ctx, `DELETE FROM archives WHERE build_id = $1 AND attempt = $2 AND old`, c.BuildID, c.Attempt)
}

// knownBlob reports whether a blob is a log's.
func (l *Service) knownBlob(ctx context.Context, key string) (known bool, err error) {
	err = l.store.DB.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM archives WHERE blob = $1)`, key).Scan(&known)
	return known, sqldb.Kind(err)
}

// BlobKeys are the keys of all logs that have moved to the blob store.
func BlobKeys(ctx context.Context, q sqldb.Querier) ([]string, error) {
	return sqldb.Collect(ctx, q, func(row sqldb.Row) (key string, err error) { return key, row.Scan(&key) },
		`SELECT blob FROM archives WHERE blob <> '' AND NOT old ORDER BY blob`)
}
