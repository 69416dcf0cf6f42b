package scheduler

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// archive is the log of an attempt that has ended, with what is still to be done
// about it.
type archive struct {
	buildID string
	attempt int32
	blob    string // empty: the log is all in log_chunks
	frames  []byte // see frameIndex
	old     bool   // the blob, then the row is to be removed
	tries   int
}

const archiveColumns = `build_id, attempt, blob, frames, old, tries`

func scanArchive(row scanner) (archive, error) {
	var a archive
	err := row.Scan(&a.buildID, &a.attempt, &a.blob, &a.frames, &a.old, &a.tries)
	return a, err
}

// archived is where the log of an attempt was moved to; false where it was not.
func (s *store) archived(ctx context.Context, buildID string, number int32) (archive, bool, error) {
	a, err := scanArchive(s.db.Read().QueryRowContext(ctx, `SELECT `+archiveColumns+` FROM archives
		WHERE build_id = $1 AND attempt = $2 AND blob <> '' AND NOT old`, buildID, number))
	if errors.Is(err, sql.ErrNoRows) {
		return archive{}, false, nil
	}
	return a, err == nil, sqldb.Kind(err)
}

// archiveLater has the log of an attempt that ends moved.
func (t *tx) archiveLater(ctx context.Context, buildID string, number int32) error {
	return t.exec(ctx, `INSERT INTO archives (`+archiveColumns+`, due_time) VALUES ($1, $2, '', $3, $4, 0, $5) ON CONFLICT DO NOTHING`,
		buildID, number, []byte{}, false, sqldb.Micros(t.now.Add(archiveAfter)))
}

// forgetLogs has nobody read the logs of a build any more and what was archived
// of them removed.
func (t *tx) forgetLogs(ctx context.Context, buildID string) error {
	t.news.archives = true
	return errors.Join(
		t.exec(ctx, `DELETE FROM log_chunks WHERE build_id = $1`, buildID),
		t.exec(ctx, `UPDATE archives SET old = $2, due_time = $3, tries = 0 WHERE build_id = $1 AND NOT old`, buildID, true, sqldb.Micros(t.now)),
	)
}

func (s *store) claimArchives(ctx context.Context, limit int) ([]archive, error) {
	var claimed []archive
	_, err := s.write(ctx, func(ctx context.Context, t *tx) (err error) {
		claimed, err = collect(ctx, t, scanArchive, `SELECT `+archiveColumns+` FROM archives
			WHERE due_time <= $1 ORDER BY due_time LIMIT $2`+t.skipLocked, sqldb.Micros(t.now), limit)
		for _, c := range claimed {
			err = errors.Join(err, t.archiveAgain(ctx, c, t.now.Add(due.Lease), c.tries))
		}
		return err
	})
	return claimed, err
}

// renewArchive keeps a claimed archive while a large log is moved.
func (s *store) renewArchive(ctx context.Context, c archive) error {
	_, err := s.write(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `UPDATE archives SET due_time = $3 WHERE build_id = $1 AND attempt = $2 AND due_time < $4 AND old = $5`,
			c.buildID, c.attempt, sqldb.Micros(t.now.Add(due.Lease)), int64(never), c.old)
	})
	return err
}

// archiveAgain says when there is something to do again, the zero time being
// never; what became old meanwhile is due as it is.
func (t *tx) archiveAgain(ctx context.Context, c archive, again time.Time, tries int) error {
	return t.exec(ctx, `UPDATE archives SET due_time = $3, tries = $4 WHERE build_id = $1 AND attempt = $2 AND old = $5`,
		c.buildID, c.attempt, dueMicros(again), tries, c.old)
}

// archiveMoved stores where a log was moved to; false where somebody else has
// moved it, or nobody reads it any more.
func (t *tx) archiveMoved(ctx context.Context, c archive) (bool, error) {
	moved, err := t.ExecContext(ctx, `UPDATE archives SET blob = $3, frames = $4 WHERE build_id = $1 AND attempt = $2 AND blob = '' AND NOT old`,
		c.buildID, c.attempt, c.blob, c.frames)
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
func (t *tx) removeChunks(ctx context.Context, buildID string, number int32) (more bool, err error) {
	removed, err := t.ExecContext(ctx, `DELETE FROM log_chunks WHERE build_id = $1 AND attempt = $2 AND position IN (
		SELECT position FROM log_chunks WHERE build_id = $1 AND attempt = $2 ORDER BY position LIMIT $3)`, buildID, number, chunksRemoved)
	if err != nil {
		return false, err
	}
	n, err := removed.RowsAffected()
	return n == chunksRemoved, err
}

func (t *tx) removeArchive(ctx context.Context, c archive) error {
	return t.exec(ctx, `DELETE FROM archives WHERE build_id = $1 AND attempt = $2 AND old`, c.buildID, c.attempt)
}

// knownBlob reports whether a blob is a log's.
func (s *store) knownBlob(ctx context.Context, key string) (known bool, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM archives WHERE blob = $1)`, key).Scan(&known)
	return known, sqldb.Kind(err)
}
