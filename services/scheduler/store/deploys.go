package store

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Deploys is what is kept of those that depend on others, or on people.
type Deploys struct{ *Tx }

// Deployed reports whether a commit was ever deployed to an environment.
func (t Deploys) Deployed(ctx context.Context, repositoryID int64, environment, sha string) (deployed bool, err error) {
	err = t.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM builds
		WHERE repository_id = $1 AND environment = $2 AND sha = $3 AND state = $4 AND part_of = '')`,
		repositoryID, environment, sha, int32(schedulerv1.Build_STATE_PASSED)).Scan(&deployed)
	return deployed, err
}

// HeldBack are the deploys to an environment that are not in its line yet, the oldest
// first: nobody has let them go, or their commit is not where it has to be before.
func HeldBack(ctx context.Context, q sqldb.Querier, repositoryID int64, environment, locked string) ([]*Build, error) {
	all, err := sqldb.Collect(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND environment = $2 AND environment <> '' AND state IN ($3, $4) AND part_of = '' ORDER BY number`+locked,
		repositoryID, environment, int32(schedulerv1.Build_STATE_BLOCKED), int32(schedulerv1.Build_STATE_WAITING))
	return slices.DeleteFunc(all, func(b *Build) bool { return !b.HeldBack() }), err
}

// HeldBack reports whether a deploy is not in line for its environment yet.
func (b *Build) HeldBack() bool {
	return b.GetReason() == schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL || b.GetReason() == schedulerv1.Build_REASON_DEPLOYS_AFTER
}

// After locks the deploys of a commit that have waited for one of it.
func (t Deploys) After(ctx context.Context, b *Build) ([]*Build, error) {
	all, err := sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE sha = $2 AND repository_id = $1 AND state = $3 AND environment <> '' AND part_of = '' ORDER BY number`+t.Locked,
		b.GetRepository().GetId(), b.GetSha(), int32(schedulerv1.Build_STATE_WAITING))
	return slices.DeleteFunc(all, func(next *Build) bool {
		return next.GetReason() != schedulerv1.Build_REASON_DEPLOYS_AFTER || next.GetAfter() != b.GetEnvironment()
	}), err
}

// NewestDeploy is the newest deploy to an environment that a pull request, or the
// commit it was merged as, has brought; nil for none.
func NewestDeploy(ctx context.Context, q sqldb.Querier, repositoryID int64, environment string, pullRequest int32, sha string) (*Build, error) {
	b, err := sqldb.First(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND environment = $2 AND environment <> '' AND part_of = '' AND (pull_request = $3 OR sha = $4)
		ORDER BY number DESC LIMIT 1`, repositoryID, environment, pullRequest, sha)
	return b, sqldb.Kind(err)
}

// SaveFile keeps the file of a deploy that others follow.
func (t Deploys) SaveFile(ctx context.Context, buildID string, file *configv1.BuildConfig) error {
	raw, err := proto.Marshal(file)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO deploy_files (build_id, config) VALUES ($1, $2)`, buildID, raw)
}

// File is the file of a deploy; nil where none follows it.
func (t Deploys) File(ctx context.Context, buildID string) (*configv1.BuildConfig, error) {
	return sqldb.First(ctx, t, func(row sqldb.Row) (*configv1.BuildConfig, error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return nil, err
		}
		file := &configv1.BuildConfig{}
		return file, proto.Unmarshal(raw, file)
	}, `SELECT config FROM deploy_files WHERE build_id = $1`, buildID)
}
