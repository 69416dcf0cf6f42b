package store

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

// EnvironmentKey is where a page of environments ended.
type EnvironmentKey struct {
	RepositoryID int64
	Name         string
}

// NewestDeployed is the build that brought the newest commit to an environment;
// nil when none did.
func (s *Store) NewestDeployed(ctx context.Context, repositoryID int64, name string) (*Build, error) {
	return sqldb.First(ctx, s.DB.Read(), ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE id IN (SELECT newest_id FROM environments WHERE repository_id = $1 AND name = $2)`, repositoryID, name)
}

// EnvironmentColumns are what ScanEnvironment reads.
const EnvironmentColumns = `repository_id, name, repository, build_id, deployed_id, newest_id, freeze_time, freeze_message, held_message, pull_request`

// ScanEnvironment reads an environment from EnvironmentColumns.
func ScanEnvironment(row sqldb.Row) (*Environment, error) {
	e := &Environment{}
	var frozen int64
	err := row.Scan(&e.RepositoryID, &e.Name, &e.Repository, &e.Holder, &e.Deployed, &e.Newest, &frozen, &e.FreezeMessage, &e.HeldBecause, &e.PullRequest)
	e.FrozenSince = sqldb.Time(frozen)
	return e, err
}

// Environment locks an environment, which is made when it is first asked for.
func (t *Tx) Environment(ctx context.Context, repositoryID int64, name string) (*Environment, error) {
	err := t.Exec(ctx, `INSERT INTO environments (repository_id, name, build_id) VALUES ($1, $2, '') ON CONFLICT DO NOTHING`, repositoryID, name)
	if err != nil {
		return nil, err
	}
	return ScanEnvironment(t.QueryRowContext(ctx, `SELECT `+EnvironmentColumns+` FROM environments
		WHERE repository_id = $1 AND name = $2`+t.Locked, repositoryID, name))
}

// SaveEnvironment stores an environment as it is now.
func (t *Tx) SaveEnvironment(ctx context.Context, e *Environment) error {
	return t.Exec(ctx, `UPDATE environments SET repository = $3, build_id = $4, deployed_id = $5, newest_id = $6,
			freeze_time = $7, freeze_message = $8, held_message = $9, pull_request = $10 WHERE repository_id = $1 AND name = $2`,
		e.RepositoryID, e.Name, e.Repository, e.Holder, e.Deployed, e.Newest, sqldb.Micros(e.FrozenSince), e.FreezeMessage, e.HeldBecause, e.PullRequest)
}

// IsDeployedTo is whether anything was ever to be deployed to an environment.
func IsDeployedTo(ctx context.Context, q sqldb.Querier, e *Environment) (is bool, err error) {
	if e.Holder != "" || e.Deployed != "" || e.Newest != "" || e.PullRequest != 0 {
		return true, nil
	}
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM builds WHERE repository_id = $1 AND environment = $2)`, e.RepositoryID, e.Name).Scan(&is)
	return is, err
}

// ForgetEnvironment removes an environment.
func ForgetEnvironment(ctx context.Context, t *Tx, e *Environment) error {
	return t.Exec(ctx, `DELETE FROM environments WHERE repository_id = $1 AND name = $2`, e.RepositoryID, e.Name)
}

// Waiting are the deploys that stand in line, in order: roll backs, then the
// oldest.
func Waiting(ctx context.Context, q sqldb.Querier, e *Environment, locked string) ([]*Build, error) {
	line, err := sqldb.Collect(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE state = $1 AND repository_id = $2 AND environment = $3 AND part_of = '' ORDER BY number`+locked,
		int32(schedulerv1.Build_STATE_WAITING), e.RepositoryID, e.Name)
	ahead := slices.DeleteFunc(slices.Clone(line), func(b *Build) bool { return b.GetRollBackOf() == "" })
	behind := slices.DeleteFunc(line, func(b *Build) bool { return b.GetRollBackOf() != "" })
	return append(ahead, behind...), err
}

// FindEnvironment names the environment of a repository, given as owner/name,
// where there is one or could be one: NotFound where Forge has built nothing of
// the repository.
func (t *Tx) FindEnvironment(ctx context.Context, repository, name string) (*Environment, error) {
	var id int64
	err := t.QueryRowContext(ctx, `SELECT repository_id FROM builds WHERE repository = $1 ORDER BY number DESC LIMIT 1`,
		strings.ToLower(repository)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Newf(fault.NotFound, "nothing of %s was ever built here", repository)
	}
	if err != nil {
		return nil, err
	}
	e, err := t.Environment(ctx, id, name)
	if err == nil && e.Repository == "" {
		e.Repository = repository
	}
	return e, err
}

// ReadEnvironments are those after the given one, of all repositories or of one.
func (s *Store) ReadEnvironments(ctx context.Context, repository string, after EnvironmentKey, limit int) ([]*Environment, error) {
	found, err := sqldb.Collect(ctx, s.DB.Read(), ScanEnvironment, `SELECT `+EnvironmentColumns+` FROM environments
		WHERE repository <> '' AND ($1 = '' OR lower(repository) = $1) AND (repository_id > $2 OR (repository_id = $2 AND name > $3))
		ORDER BY repository_id, name LIMIT $4`, strings.ToLower(repository), after.RepositoryID, after.Name, limit)
	return found, sqldb.Kind(err)
}

// EnvironmentLeftBy locks the environment that a build held and has ended in, with
// all containers of its jobs gone; nil where there is none.
func (t *Tx) EnvironmentLeftBy(ctx context.Context, buildID string) (*Environment, error) {
	return sqldb.First(ctx, t, ScanEnvironment, `SELECT `+EnvironmentColumns+` FROM environments
		WHERE build_id = $1 AND EXISTS (SELECT 1 FROM builds WHERE id = $1 AND state >= $2) AND NOT EXISTS (
			SELECT 1 FROM builds jobs JOIN attempts ON attempts.build_id = jobs.id
			WHERE jobs.part_of = $1 AND jobs.part_of <> '' AND (NOT ended OR stop_time < 9223372036854775807 AND kept_until = 0))`+t.Locked,
		buildID, int32(firstEnded))
}
