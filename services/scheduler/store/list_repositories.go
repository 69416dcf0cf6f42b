package store

import (
	"context"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// NewestBuilds are the newest builds of each repository, by the repositories' names in
// lower case, from after one on. Each name is found by a step in an index, however many
// builds a repository has.
func (s *Store) NewestBuilds(ctx context.Context, after string, limit int) ([]*Build, error) {
	found, err := sqldb.Collect(ctx, s.DB.Read(), ScanBuild, `WITH RECURSIVE names (name, place) AS (
			SELECT (SELECT repository FROM builds WHERE repository > $1 ORDER BY repository LIMIT 1), 1
			UNION ALL
			SELECT (SELECT repository FROM builds WHERE repository > names.name ORDER BY repository LIMIT 1), names.place + 1
				FROM names WHERE names.name IS NOT NULL AND names.place < $2)
		SELECT `+BuildColumns+` FROM builds WHERE number IN (
			SELECT (SELECT number FROM builds WHERE repository = names.name AND part_of = '' ORDER BY number DESC LIMIT 1) FROM names)
		ORDER BY repository`, after, limit)
	return found, sqldb.Kind(err)
}
