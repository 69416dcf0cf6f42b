package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Instance is the name of the Forge that has this database, the same for all its
// replicas and for good: 26 letters and digits, made when first asked for.
// Engines put it on containers, so that two Forges on one of them leave each
// other's alone.
func Instance(ctx context.Context, db *sqldb.DB) (name string, err error) {
	err = db.Write(ctx, func(ctx context.Context, t *sql.Tx) error {
		_, err := t.ExecContext(ctx, `INSERT INTO instance (id, name) VALUES (1, $1) ON CONFLICT DO NOTHING`, strings.ToLower(rand.Text()))
		if err != nil {
			return err
		}
		return t.QueryRowContext(ctx, `SELECT name FROM instance`).Scan(&name)
	})
	if err != nil {
		return "", fmt.Errorf("name of this Forge: %w", sqldb.Kind(err))
	}
	return name, nil
}
