package gateway

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// sweepRefs stores pushes of which no delivery told, and returns those that are new:
// GitHub sends none where more than three branches or tags are pushed at once, and
// loses one now and then. What is there at the first look at a repository, and at the
// first after its file names others, is taken for known.
func (r *recovery) sweepRefs(ctx context.Context, kind sweepKind) ([]string, error) {
	stream, err := r.refs.ListPushedRefs(ctx, &configv1.ListPushedRefsRequest{Frugal: kind == routineSweep})
	if err != nil {
		return nil, fmt.Errorf("sweep branches and tags: %w", err)
	}
	return keepAll(stream, "branches and tags", func(found *configv1.ListPushedRefsResponse) ([]string, error) { return r.keepPushes(ctx, found) })
}

// keepPushes stores what is new of a repository since the last look, as far as no
// delivery told of it.
func (r *recovery) keepPushes(ctx context.Context, found *configv1.ListPushedRefsResponse) (swept []string, err error) {
	repository := found.GetRepository().GetId()
	known, err := r.store.knownRefs(ctx, repository)
	if err != nil {
		return nil, err
	}
	now := map[string]string{patternsOf: strings.Join(found.GetPatterns(), " ")}
	// What other patterns name was there before, most likely.
	looked := len(known) > 0 && known[patternsOf] == now[patternsOf]
	for _, at := range found.GetRefs() {
		now[at.GetRef()] = at.GetSha()
		if !looked || known[at.GetRef()] == at.GetSha() {
			continue
		}
		id, err := r.keepPush(ctx, found, at, known[at.GetRef()])
		if err != nil {
			return nil, err
		}
		if id != "" {
			swept = append(swept, id)
		}
	}
	return swept, r.store.setRefs(ctx, repository, now)
}

// keepPush stores a push as its webhook would have told of it, unless one has.
func (r *recovery) keepPush(ctx context.Context, in *configv1.ListPushedRefsResponse, at *configv1.PushedRef, before string) (string, error) {
	id, isNew, err := r.isNew(ctx, pushState(in.GetRepository().GetId(), at.GetRef(), at.GetSha()))
	if !isNew || err != nil {
		return "", err
	}
	commit, err := r.commits.GetCommit(ctx, &configv1.GetCommitRequest{
		Repository: in.GetRepository(), InstallationId: in.GetInstallationId(), Sha: at.GetSha(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", fmt.Errorf("commit of %s: %w", at.GetRef(), err)
	}
	if before == "" {
		before = strings.Repeat("0", len(at.GetSha()))
	}
	of := in.GetRepository()
	payload, err := json.Marshal(github.PushEvent{
		Ref: &at.Ref, Before: &before, After: &at.Sha, Installation: &github.Installation{ID: &in.InstallationId},
		HeadCommit: &github.HeadCommit{ID: &at.Sha, Message: new(commit.GetMessage())},
		Repo: &github.PushEventRepository{
			ID: &of.Id, Name: &of.Name, FullName: new(of.GetOwner() + "/" + of.GetName()), Owner: &github.User{Login: &of.Owner},
			DefaultBranch: &of.DefaultBranch, Private: &of.Private, Fork: &of.Fork,
		},
	})
	if err != nil {
		return "", fmt.Errorf("push of %s: %w", at.GetRef(), err)
	}
	return id, r.put(ctx, id, "push", payload)
}

// pushState names what a push made of a ref.
func pushState(repository int64, ref, sha string) string {
	return fmt.Sprintf("%d-%s-%s", repository, ref, sha)
}

// patternsOf stands for a ref in the row that says what a look looked for.
const patternsOf = ""

// knownRefs are those that the last look at a repository found; none where there was
// no look.
func (s *store) knownRefs(ctx context.Context, repository int64) (map[string]string, error) {
	type row struct{ ref, sha string }
	rows, err := sqldb.Collect(ctx, s.db.Read(), func(r sqldb.Row) (one row, err error) {
		err = r.Scan(&one.ref, &one.sha)
		return one, err
	}, `SELECT ref, sha FROM refs WHERE repository_id = $1`, repository)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("refs of repository %d: %w", repository, err))
	}
	known := map[string]string{}
	for _, one := range rows {
		known[one.ref] = one.sha
	}
	return known, nil
}

// setRefs stores what a look at a repository found, in place of what was before.
func (s *store) setRefs(ctx context.Context, repository int64, now map[string]string) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM refs WHERE repository_id = $1`, repository); err != nil {
			return err
		}
		for ref, sha := range now {
			if _, err := tx.ExecContext(ctx, `INSERT INTO refs (repository_id, ref, sha) VALUES ($1, $2, $3)`, repository, ref, sha); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("store refs of repository %d: %w", repository, err))
	}
	return nil
}
