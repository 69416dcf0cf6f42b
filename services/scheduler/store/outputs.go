package store

import (
	"context"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Output is a variable that a job hands on to those that need it.
type Output struct{ BuildID, Name, Value string }

// SaveOutputs stores what an attempt of a job hands on, in place of what an earlier
// one did.
func (t *Tx) SaveOutputs(ctx context.Context, buildID string, values map[string]string) error {
	if err := t.Exec(ctx, `DELETE FROM outputs WHERE build_id = $1`, buildID); err != nil {
		return err
	}
	for name, value := range values {
		if err := t.Exec(ctx, `INSERT INTO outputs (build_id, name, value) VALUES ($1, $2, $3)`, buildID, name, value); err != nil {
			return err
		}
	}
	return nil
}

// CopyOutputs has one job hand on what another did.
func CopyOutputs(ctx context.Context, t *Tx, from, to string) error {
	return t.Exec(ctx, `INSERT INTO outputs (build_id, name, value) SELECT $2, name, value FROM outputs WHERE build_id = $1`, from, to)
}

// OutputsOf are what the jobs of a build have handed on so far.
func (s *Store) OutputsOf(ctx context.Context, wholeID string) ([]Output, error) {
	scan := func(row sqldb.Row) (Output, error) {
		var o Output
		err := row.Scan(&o.BuildID, &o.Name, &o.Value)
		return o, err
	}
	found, err := sqldb.Collect(ctx, s.DB.Read(), scan, `SELECT build_id, name, value FROM outputs
		WHERE build_id IN (SELECT id FROM builds WHERE part_of = $1 AND part_of <> '') ORDER BY build_id, name`, wholeID)
	return found, sqldb.Kind(err)
}
