package store

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Previews is what is kept of the previews of pull requests.
type Previews struct{ *Tx }

// Preview is what an open pull request is to have: its head, deployed to each
// environment of the file.
type Preview struct {
	RepositoryID int64
	PullRequest  int32
	Sha          string
	Labels       []string // the pull request's
	File         *configv1.BuildConfig
}

// Wants reports whether an environment is among them.
func (p *Preview) Wants(environment string) bool {
	return p != nil && slices.ContainsFunc(p.File.GetEnvironments(), func(e *configv1.Destination) bool { return e.GetName() == environment })
}

// Wanted locks what a pull request is to have; nil for nothing.
func (t Previews) Wanted(ctx context.Context, repositoryID int64, pullRequest int32) (*Preview, error) {
	return sqldb.First(ctx, t, func(row sqldb.Row) (*Preview, error) {
		p, raw := &Preview{RepositoryID: repositoryID, PullRequest: pullRequest, File: &configv1.BuildConfig{}}, []byte{}
		var labels string
		if err := row.Scan(&p.Sha, &labels, &raw); err != nil {
			return nil, err
		}
		p.Labels = strings.Split(labels, "\n")
		return p, proto.Unmarshal(raw, p.File)
	}, `SELECT sha, labels, config FROM previews WHERE repository_id = $1 AND pull_request = $2`+t.Locked, repositoryID, pullRequest)
}

// Want stores what a pull request is to have.
func (t Previews) Want(ctx context.Context, p *Preview) error {
	raw, err := proto.Marshal(p.File)
	if err != nil {
		return err
	}
	return t.Exec(ctx, `INSERT INTO previews (repository_id, pull_request, sha, labels, config) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (repository_id, pull_request) DO UPDATE SET sha = excluded.sha, labels = excluded.labels, config = excluded.config`,
		p.RepositoryID, p.PullRequest, p.Sha, strings.Join(p.Labels, "\n"), raw)
}

// Forget stores that a pull request is to have no preview.
func (t Previews) Forget(ctx context.Context, repositoryID int64, pullRequest int32) error {
	return t.Exec(ctx, `DELETE FROM previews WHERE repository_id = $1 AND pull_request = $2`, repositoryID, pullRequest)
}

// PullRequestKey is where a page of pull requests ended.
type PullRequestKey struct {
	RepositoryID int64
	Number       int32
}

// PreviewedPullRequests are those after the given one that have a preview, or are about
// to, and of which nothing told that they are closed.
func PreviewedPullRequests(ctx context.Context, q sqldb.Querier, after PullRequestKey, limit int) ([]*eventv1.PullRequestName, error) {
	newest, err := sqldb.Collect(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE number IN (
			SELECT (SELECT max(number) FROM builds WHERE repository_id = p.repository_id AND pull_request = p.pull_request AND part_of = '')
			FROM previews p WHERE (p.repository_id > $1 OR (p.repository_id = $1 AND p.pull_request > $2))
				AND EXISTS (SELECT 1 FROM environments e WHERE e.repository_id = p.repository_id AND e.pull_request = p.pull_request AND e.pull_request <> 0)
				AND EXISTS (SELECT 1 FROM builds b WHERE b.repository_id = p.repository_id AND b.pull_request = p.pull_request AND b.part_of = '')
			ORDER BY p.repository_id, p.pull_request LIMIT $3)
		ORDER BY repository_id, pull_request`, after.RepositoryID, after.Number, limit)
	var found []*eventv1.PullRequestName
	for _, b := range newest {
		found = append(found, &eventv1.PullRequestName{Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Number: b.GetPullRequest()})
	}
	return found, sqldb.Kind(err)
}

// Environments locks the previews of a pull request.
func (t Previews) Environments(ctx context.Context, repositoryID int64, pullRequest int32) ([]*Environment, error) {
	return sqldb.Collect(ctx, t, ScanEnvironment, `SELECT `+EnvironmentColumns+` FROM environments
		WHERE repository_id = $1 AND pull_request = $2 AND pull_request <> 0 ORDER BY name`+t.Locked, repositoryID, pullRequest)
}

// Claim has an environment be the preview of a pull request; false where it is another
// one, or was one.
func (t Previews) Claim(ctx context.Context, repositoryID int64, name string, pullRequest int32) (bool, error) {
	e, err := t.Environment(ctx, repositoryID, name)
	if err != nil || e.PullRequest != 0 {
		return e != nil && e.PullRequest == pullRequest, err
	}
	var used bool
	err = t.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM builds WHERE repository_id = $1 AND environment = $2 AND environment <> ''
		AND action NOT IN ($3, $4))`, repositoryID, name, int32(schedulerv1.Build_ACTION_PREVIEW), int32(schedulerv1.Build_ACTION_STOP)).Scan(&used)
	if used || err != nil {
		return false, err
	}
	e.PullRequest = pullRequest
	return true, t.SaveEnvironment(ctx, e)
}

// Remove takes a preview that has ended out of the lists.
func (t Previews) Remove(ctx context.Context, e *Environment) error {
	return t.Exec(ctx, `DELETE FROM environments WHERE repository_id = $1 AND name = $2 AND pull_request <> 0`, e.RepositoryID, e.Name)
}

// Unfinished locks the deploys to a preview that have not ended, the oldest first.
func (t Previews) Unfinished(ctx context.Context, repositoryID int64, environment string) ([]*Build, error) {
	return sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND environment = $2 AND environment <> '' AND action = $3 AND state < $4 AND part_of = '' ORDER BY number`+t.Locked,
		repositoryID, environment, int32(schedulerv1.Build_ACTION_PREVIEW), int32(firstEnded))
}

// Newest is the newest deploy to a preview or, if it came later, what takes it down; nil
// for neither.
func (t Previews) Newest(ctx context.Context, repositoryID int64, environment string) (*Build, error) {
	return sqldb.First(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND environment = $2 AND environment <> '' AND action IN ($3, $4) AND part_of = '' ORDER BY number DESC LIMIT 1`,
		repositoryID, environment, int32(schedulerv1.Build_ACTION_PREVIEW), int32(schedulerv1.Build_ACTION_STOP))
}

// Up is the newest deploy to a preview of which something was begun, unless what takes
// it down has passed or is to come; nil where nothing can be there.
func (t Previews) Up(ctx context.Context, repositoryID int64, environment string) (*Build, error) {
	return sqldb.First(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds
		WHERE repository_id = $1 AND environment = $2 AND environment <> '' AND action = $3 AND part_of = ''
			AND (EXISTS (SELECT 1 FROM attempts WHERE build_id = builds.id)
				OR EXISTS (SELECT 1 FROM builds jobs JOIN attempts ON attempts.build_id = jobs.id WHERE jobs.part_of = builds.id AND jobs.part_of <> ''))
			AND number > COALESCE((SELECT max(number) FROM builds WHERE repository_id = $1 AND environment = $2 AND environment <> ''
				AND action = $4 AND part_of = '' AND state <= $5), 0)
		ORDER BY number DESC LIMIT 1`,
		repositoryID, environment, int32(schedulerv1.Build_ACTION_PREVIEW), int32(schedulerv1.Build_ACTION_STOP), int32(schedulerv1.Build_STATE_PASSED))
}

// TakenDown stores that what a build had deployed is there no more, and has GitHub told.
func (t Previews) TakenDown(ctx context.Context, id string) error {
	b, err := t.Build(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	b.TakeDownTime = timestamppb.New(t.Now)
	if err := t.SaveBuild(ctx, b); err != nil {
		return err
	}
	return t.enqueueReport(ctx, b)
}
