package store

import (
	"context"
	"errors"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// BuiltImage is what an image step of an attempt hands on.
type BuiltImage struct {
	BuildID       string
	Attempt, Step int32
	Output        string // the variable
	Loaded        string // its name in the engine; empty: it is not there
	Pushed        string // name@digest; empty: it was not
}

const builtImageColumns = `build_id, attempt, step, output, loaded, pushed`

func scanBuiltImage(row sqldb.Row) (i BuiltImage, err error) {
	return i, row.Scan(&i.BuildID, &i.Attempt, &i.Step, &i.Output, &i.Loaded, &i.Pushed)
}

// NoteImage stores an image that is about to be loaded.
func NoteImage(ctx context.Context, t *Tx, i BuiltImage) error {
	return t.Exec(ctx, `INSERT INTO built_images (`+builtImageColumns+`, built) VALUES ($1, $2, $3, $4, $5, $6, FALSE)`,
		i.BuildID, i.Attempt, i.Step, i.Output, i.Loaded, i.Pushed)
}

// SettleImage stores that an image is there, in place of what an earlier try of its step
// has pushed. false: it was to be loaded, and is forgotten by now.
func SettleImage(ctx context.Context, t *Tx, i BuiltImage) (bool, error) {
	if i.Loaded == "" {
		err := t.Exec(ctx, `DELETE FROM built_images WHERE build_id = $1 AND attempt = $2 AND step = $3 AND loaded = ''`, i.BuildID, i.Attempt, i.Step)
		if err == nil {
			err = t.Exec(ctx, `INSERT INTO built_images (`+builtImageColumns+`, built) VALUES ($1, $2, $3, $4, '', $5, TRUE)`,
				i.BuildID, i.Attempt, i.Step, i.Output, i.Pushed)
		}
		return true, err
	}
	changed, err := t.ExecContext(ctx, `UPDATE built_images SET pushed = $5, built = TRUE WHERE build_id = $1 AND attempt = $2 AND step = $3 AND loaded = $4`,
		i.BuildID, i.Attempt, i.Step, i.Loaded, i.Pushed)
	if err != nil {
		return false, err
	}
	n, err := changed.RowsAffected()
	return n > 0, err
}

// BuiltImages are those that the jobs of a build have built so far; of one step what is
// loaded comes first.
func BuiltImages(ctx context.Context, s *Store, wholeID string) ([]BuiltImage, error) {
	found, err := sqldb.Collect(ctx, s.DB.Read(), scanBuiltImage, `SELECT `+builtImageColumns+` FROM built_images
		WHERE built AND build_id IN (SELECT id FROM builds WHERE part_of = $1 AND part_of <> '') ORDER BY build_id, attempt, step, loaded DESC`, wholeID)
	return found, sqldb.Kind(err)
}

// CopyImages has one job hand on what another has pushed.
func CopyImages(ctx context.Context, t *Tx, from *Build, to string) error {
	return t.Exec(ctx, `INSERT INTO built_images (`+builtImageColumns+`, built)
		SELECT $3, 0, step, output, '', max(pushed), TRUE FROM built_images
		WHERE build_id = $1 AND attempt = $2 AND built AND pushed <> '' GROUP BY step, output`, from.GetId(), from.GetAttempt(), to)
}

// UnneededImages are those in the engine whose build has ended, with nothing of it left
// running, at most so many.
func UnneededImages(ctx context.Context, s *Store, limit int) ([]BuiltImage, error) {
	found, err := sqldb.Collect(ctx, s.DB.Read(), scanBuiltImage, `SELECT `+builtImageColumns+` FROM built_images
		WHERE loaded <> '' AND NOT EXISTS (SELECT 1 FROM builds job JOIN builds whole ON whole.id = job.id OR job.part_of <> '' AND whole.id = job.part_of
			WHERE job.id = built_images.build_id AND (whole.end_time = 0
				OR EXISTS (SELECT 1 FROM attempts WHERE attempts.build_id = whole.id AND (NOT ended OR stop_time < 9223372036854775807))
				OR EXISTS (SELECT 1 FROM builds of JOIN attempts ON attempts.build_id = of.id
					WHERE of.part_of = whole.id AND of.part_of <> '' AND (NOT ended OR stop_time < 9223372036854775807))))
		ORDER BY loaded LIMIT $1`, limit)
	return found, sqldb.Kind(err)
}

// ForgetImage notes that an image is not in the engine any more.
func ForgetImage(ctx context.Context, t *Tx, i BuiltImage) error {
	var pushed error
	if i.Pushed != "" {
		_, pushed = SettleImage(ctx, t, BuiltImage{BuildID: i.BuildID, Attempt: i.Attempt, Step: i.Step, Output: i.Output, Pushed: i.Pushed})
	}
	return errors.Join(pushed, t.Exec(ctx, `DELETE FROM built_images WHERE loaded = $1`, i.Loaded))
}
