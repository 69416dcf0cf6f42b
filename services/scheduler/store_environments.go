package scheduler

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// newestDeployed is the build that brought the newest commit to an environment;
// nil when none did.
func (s *store) newestDeployed(ctx context.Context, repositoryID int64, name string) (*build, error) {
	found, err := collect(ctx, s.db.Read(), scanBuild, `SELECT `+buildColumns+` FROM builds
		WHERE id IN (SELECT newest_id FROM environments WHERE repository_id = $1 AND name = $2)`, repositoryID, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

const environmentColumns = `repository_id, name, repository, build_id, deployed_id, newest_id, freeze_time, freeze_message`

func scanEnvironment(row scanner) (*environment, error) {
	e := &environment{}
	var frozen int64
	err := row.Scan(&e.repositoryID, &e.name, &e.repository, &e.holder, &e.deployed, &e.newest, &frozen, &e.freezeMessage)
	e.frozen = sqldb.Time(frozen)
	return e, err
}

// environment locks an environment, which is made when it is first asked for.
func (t *tx) environment(ctx context.Context, repositoryID int64, name string) (*environment, error) {
	err := t.exec(ctx, `INSERT INTO environments (repository_id, name, build_id) VALUES ($1, $2, '') ON CONFLICT DO NOTHING`, repositoryID, name)
	if err != nil {
		return nil, err
	}
	return scanEnvironment(t.QueryRowContext(ctx, `SELECT `+environmentColumns+` FROM environments
		WHERE repository_id = $1 AND name = $2`+t.locked, repositoryID, name))
}

func (t *tx) saveEnvironment(ctx context.Context, e *environment) error {
	return t.exec(ctx, `UPDATE environments SET repository = $3, build_id = $4, deployed_id = $5, newest_id = $6,
			freeze_time = $7, freeze_message = $8 WHERE repository_id = $1 AND name = $2`,
		e.repositoryID, e.name, e.repository, e.holder, e.deployed, e.newest, sqldb.Micros(e.frozen), e.freezeMessage)
}

// waiting are the deploys that stand in line, in order: roll backs, then the
// oldest.
func waiting(ctx context.Context, q querier, e *environment, locked string) ([]*build, error) {
	line, err := collect(ctx, q, scanBuild, `SELECT `+buildColumns+` FROM builds
		WHERE state = $1 AND repository_id = $2 AND action = $3 ORDER BY number`+locked,
		int32(schedulerv1.Build_STATE_WAITING), e.repositoryID, int32(deployTo(e.name)))
	ahead := slices.DeleteFunc(slices.Clone(line), func(b *build) bool { return b.GetRollBackOf() == "" })
	behind := slices.DeleteFunc(line, func(b *build) bool { return b.GetRollBackOf() != "" })
	return append(ahead, behind...), err
}

// findEnvironment names the environment of a repository, given as owner/name,
// where there is one or could be one: NotFound where Forge has built nothing of
// the repository.
func (t *tx) findEnvironment(ctx context.Context, repository, name string) (*environment, error) {
	var id int64
	err := t.QueryRowContext(ctx, `SELECT repository_id FROM builds WHERE repository = $1 ORDER BY number DESC LIMIT 1`,
		strings.ToLower(repository)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "nothing of %s was ever built here", repository)
	}
	if err != nil {
		return nil, err
	}
	e, err := t.environment(ctx, id, name)
	if err == nil && e.repository == "" {
		e.repository = repository
	}
	return e, err
}

// readEnvironments are those after the given one, of all repositories or of one.
func (s *store) readEnvironments(ctx context.Context, repository string, after environmentKey, limit int) ([]*environment, error) {
	found, err := collect(ctx, s.db.Read(), scanEnvironment, `SELECT `+environmentColumns+` FROM environments
		WHERE repository <> '' AND ($1 = '' OR lower(repository) = $1) AND (repository_id > $2 OR (repository_id = $2 AND name > $3))
		ORDER BY repository_id, name LIMIT $4`, strings.ToLower(repository), after.repositoryID, after.name, limit)
	return found, sqldb.Kind(err)
}

// environmentLeftBy locks the environment that a build held and has ended in; nil
// where there is none.
func (t *tx) environmentLeftBy(ctx context.Context, buildID string) (*environment, error) {
	found, err := collect(ctx, t, scanEnvironment, `SELECT `+environmentColumns+` FROM environments
		WHERE build_id = $1 AND EXISTS (SELECT 1 FROM builds WHERE id = $1 AND state >= $2)`+t.locked, buildID, int32(firstEnded))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}
