package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// enqueueReport has the reporter told of a build that has news, and of those that
// share its commit status where these are shown, or hidden, by that.
func (t *Tx) enqueueReport(ctx context.Context, b *Build) error {
	if b.IsRemote() {
		return nil
	}
	s, repository := commit{t}, b.GetRepository().GetId()
	if err := s.lockCommit(ctx, repository, b.GetSha()); err != nil {
		return err
	}
	alone, err := s.isAlone(ctx, repository, b.GetSha(), WholeID(b.GetId()))
	if err != nil {
		return err
	}
	if alone {
		return s.issueReport(ctx, b, shown, 0)
	}
	if b.IsJob() { // it is shown where its build is
		standing, _, err := s.standing(ctx, b.GetPartOf())
		if err != nil {
			return err
		}
		return s.issueNext(ctx, b, standing)
	}
	rivals, err := s.rivals(ctx, repository, b.GetSha())
	if err != nil {
		return err
	}
	rivals = slices.DeleteFunc(rivals, func(r *Build) bool { return r.GetContext() != b.GetContext() || r.IsRemote() })
	return s.show(ctx, rivals, b.GetId())
}

// ShowAgain has the right build shown at each commit that a pull request shares
// with others, after it was closed or opened again.
func ShowAgain(ctx context.Context, t *Tx, repositoryID int64, pullRequest int32) error {
	s := commit{t}
	shas, err := sqldb.Collect(ctx, t, scanID, `SELECT DISTINCT sha FROM builds WHERE repository_id = $1 AND pull_request = $2 AND part_of = ''
		AND EXISTS (SELECT 1 FROM builds others WHERE others.sha = builds.sha AND others.repository_id = $1 AND others.pull_request <> $2)
		ORDER BY sha`, repositoryID, pullRequest)
	if err != nil {
		return err
	}
	for _, sha := range shas {
		if err := s.lockCommit(ctx, repositoryID, sha); err != nil {
			return err
		}
		all, err := s.rivals(ctx, repositoryID, sha)
		if err != nil {
			return err
		}
		contexts := map[string][]*Build{}
		for _, b := range all {
			contexts[b.GetContext()] = append(contexts[b.GetContext()], b)
		}
		for _, rivals := range contexts {
			if err := s.show(ctx, rivals, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit decides which builds of a commit are shown, and has the reporter told.
type commit struct{ *Tx }

// lockCommit has the builds of a commit change one after the other: what one of
// them comes to may decide which is shown. Who locks builds locks them before.
func (t commit) lockCommit(ctx context.Context, repositoryID int64, sha string) error {
	if t.Locked == "" { // SQLite has one writer
		return nil
	}
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%d %s", repositoryID, sha)                        // it takes whatever it is given
	return t.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(hash.Sum64())) //nolint:gosec // any number will do
}

// isAlone reports whether a build is the only one of its commit.
func (t commit) isAlone(ctx context.Context, repositoryID int64, sha, buildID string) (alone bool, err error) {
	err = t.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM builds WHERE sha = $2 AND repository_id = $1 AND part_of = '' AND id <> $3)`,
		repositoryID, sha, buildID).Scan(&alone)
	return alone, err
}

// issueNext is issueReport by the version after all of the commit.
func (t commit) issueNext(ctx context.Context, b *Build, standing Standing) error {
	var last int64
	err := t.QueryRowContext(ctx, `SELECT COALESCE(max(version), 0) FROM targets
		WHERE build_id IN (SELECT id FROM builds WHERE sha = $2 AND repository_id = $1)`, b.GetRepository().GetId(), b.GetSha()).Scan(&last)
	if err != nil {
		return err
	}
	return t.issueReport(ctx, b, standing, last)
}

// rivals are the builds of a commit, the newest first.
func (t commit) rivals(ctx context.Context, repositoryID int64, sha string) ([]*Build, error) {
	return sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE sha = $2 AND repository_id = $1 AND part_of = ''
		ORDER BY number DESC`, repositoryID, sha)
}

// show has the reporter told of a build with news, and of each whose standing is
// another now. The builds are of one commit and context.
func (t commit) show(ctx context.Context, rivals []*Build, news string) error {
	var claims []claim
	for _, b := range rivals {
		open, err := t.isOpen(ctx, b.GetRepository().GetId(), b.GetPullRequest())
		if err != nil {
			return err
		}
		claims = append(claims, claim{Build: b.Build, Open: open})
	}
	all := standings(claims)
	for _, b := range rivals {
		now := all[b.GetId()]
		before, told, err := t.standing(ctx, b.GetId())
		turned := told && before != now
		switch {
		case err != nil:
		case turned && now == replaced && b.GetId() != news: // what takes its place is told
			err = t.Exec(ctx, `UPDATE targets SET standing = $2 WHERE build_id = $1`, b.GetId(), int32(now))
		case turned || b.GetId() == news:
			err = t.issueNext(ctx, b, now)
		}
		if err == nil && turned && now != replaced && b.HasJobs() {
			err = t.showJobs(ctx, b, now)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// showJobs does the same for those jobs of a build that GitHub knows of.
func (t commit) showJobs(ctx context.Context, whole *Build, standing Standing) error {
	jobs, err := JobsOf(ctx, t, whole.GetId(), "")
	if err != nil {
		return err
	}
	for _, job := range jobs {
		_, told, err := t.standing(ctx, job.GetId())
		if err == nil && told {
			err = t.issueNext(ctx, job, standing)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// standing is how the reporter was last told of a build; told is false where it
// never was.
func (t commit) standing(ctx context.Context, buildID string) (standing Standing, told bool, err error) {
	err = t.QueryRowContext(ctx, `SELECT standing FROM targets WHERE build_id = $1`, buildID).Scan(&standing)
	if errors.Is(err, sql.ErrNoRows) {
		return shown, false, nil
	}
	return standing, err == nil, err
}

// isOpen reports whether a pull request is, as far as is known; what is of none is.
func (t commit) isOpen(ctx context.Context, repositoryID int64, number int32) (bool, error) {
	closed := false
	err := t.QueryRowContext(ctx, `SELECT closed FROM pull_requests WHERE repository_id = $1 AND number = $2`, repositoryID, number).Scan(&closed)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return !closed, err
}
