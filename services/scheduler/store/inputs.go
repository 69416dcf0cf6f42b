package store

import (
	"context"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Input is a value that somebody gave for a build.
type Input struct {
	Name, Variable string
	// KeyID is what Value is encrypted with; "" where it is no secret.
	KeyID string
	Value []byte
}

// AddInputs stores those of a new build. Of a build that has ended already no secret is
// kept.
func AddInputs(ctx context.Context, t *Tx, buildID string, all []Input) error {
	for position, i := range all {
		err := t.Exec(ctx, `INSERT INTO inputs (build_id, position, name, variable, key_id, value) VALUES ($1, $2, $3, $4, $5, $6)`,
			buildID, position, i.Name, i.Variable, i.KeyID, i.Value)
		if err != nil {
			return err
		}
	}
	return t.Exec(ctx, forgetSecretInputs+` AND EXISTS (SELECT 1 FROM builds WHERE id = $1 AND state >= $2)`, buildID, int32(firstEnded))
}

const forgetSecretInputs = `DELETE FROM inputs WHERE build_id = $1 AND key_id <> ''` //nolint:gosec // it holds none

// InputsOf are those of a build, in the order of its file.
func (s *Store) InputsOf(ctx context.Context, wholeID string) ([]Input, error) {
	scan := func(row sqldb.Row) (Input, error) {
		var i Input
		err := row.Scan(&i.Name, &i.Variable, &i.KeyID, &i.Value)
		return i, err
	}
	found, err := sqldb.Collect(ctx, s.DB.Read(), scan, `SELECT name, variable, key_id, value FROM inputs WHERE build_id = $1 ORDER BY position`, wholeID)
	return found, sqldb.Kind(err)
}
