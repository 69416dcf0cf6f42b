package config

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// CompareCommits implements configv1.CommitServiceServer.
func (s *Service) CompareCommits(ctx context.Context, req *configv1.CompareCommitsRequest) (*configv1.CompareCommitsResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	for _, sha := range []string{req.GetBase(), req.GetHead()} {
		if err := checkSHA(sha); err != nil {
			return nil, err
		}
	}
	if req.GetBase() == req.GetHead() {
		return &configv1.CompareCommitsResponse{Relation: configv1.CompareCommitsResponse_RELATION_IDENTICAL}, nil
	}
	noun := fmt.Sprintf("compare %s with %s in %s", req.GetHead(), req.GetBase(), g.fullName())
	recent := s.recent(req.GetEventTime())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, notYet(err, recent))
	}
	relation, err := compare(ctx, client, g, req.GetBase(), req.GetHead())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, notYet(err, recent && !unrelated(err)))
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, nil
}

// compare returns how head relates to base.
func compare(ctx context.Context, client *github.Client, g grant, base, head string) (configv1.CompareCommitsResponse_Relation, error) {
	// GitHub lists the changed files on the first page alone. Only the relation is needed.
	compared, _, err := client.Repositories.CompareCommits(ctx, g.owner, g.name, base, head, &github.ListOptions{Page: 2, PerPage: 1})
	if err != nil {
		return 0, githubFault(err)
	}
	relation, known := map[string]configv1.CompareCommitsResponse_Relation{
		"identical": configv1.CompareCommitsResponse_RELATION_IDENTICAL,
		"ahead":     configv1.CompareCommitsResponse_RELATION_AHEAD,
		"behind":    configv1.CompareCommitsResponse_RELATION_BEHIND,
		"diverged":  configv1.CompareCommitsResponse_RELATION_DIVERGED,
	}[compared.GetStatus()]
	if !known {
		return 0, fault.Newf(fault.Unavailable, "GitHub answers %q", compared.GetStatus())
	}
	return relation, nil
}

// unrelated reports whether GitHub has both commits and finds that they share no
// history.
func unrelated(err error) bool { return strings.Contains(err.Error(), "No common ancestor") }

// GetCommit implements configv1.CommitServiceServer.
func (s *Service) GetCommit(ctx context.Context, req *configv1.GetCommitRequest) (*configv1.GetCommitResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err == nil {
		err = checkSHA(req.GetSha())
	}
	if err != nil {
		return nil, err
	}
	recent := s.recent(req.GetEventTime())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("commit %s of %s: %w", req.GetSha(), g.fullName(), notYet(err, recent))
	}
	// The files that it changes come along, a page of them.
	commit, _, err := client.Repositories.GetCommit(ctx, g.owner, g.name, req.GetSha(), &github.ListOptions{PerPage: 1})
	switch {
	case statusOf(err) == http.StatusUnprocessableEntity: // how GitHub says that it has no commit of a full sha
		err = fault.Newf(fault.NotFound, "GitHub has no commit %s of %s", req.GetSha(), g.fullName())
		return nil, notYet(err, recent)
	case err != nil:
		return nil, fmt.Errorf("commit %s of %s: %w", req.GetSha(), g.fullName(), notYet(githubFault(err), recent))
	}
	return &configv1.GetCommitResponse{Sha: req.GetSha(), Message: commit.GetCommit().GetMessage()}, nil
}

// commitOfTag finds the commit that a tag leads to, through an annotated one too.
func commitOfTag(ctx context.Context, client *github.Client, g grant, tag string) (*configv1.FindCommitResponse, error) {
	commit, _, err := client.Repositories.GetCommit(ctx, g.owner, g.name, "tags/"+tag, &github.ListOptions{PerPage: 1})
	switch {
	case statusOf(err) == http.StatusUnprocessableEntity: // how GitHub says that it has no such ref
		err = fault.Newf(fault.NotFound, "%s has no tag %s", g.fullName(), tag)
	case err != nil:
		err = fmt.Errorf("tag %s: %w", tag, githubFault(err))
	}
	title, _, _ := strings.Cut(commit.GetCommit().GetMessage(), "\n")
	return &configv1.FindCommitResponse{Sha: commit.GetSHA(), Title: strings.TrimSpace(title)}, err
}

// FindCommit implements configv1.CommitServiceServer.
func (s *Service) FindCommit(ctx context.Context, req *configv1.FindCommitRequest) (*configv1.FindCommitResponse, error) {
	g, err := grantFor(req.GetRepository(), 0, roomConfig)
	if err != nil {
		return nil, err
	}
	switch {
	case req.GetTag() != "" && (req.GetSha() != "" || req.GetBranch() != ""):
		return nil, fault.New(fault.Invalid, "a tag stands in place of a branch and a commit")
	case req.GetSha() != "":
		if err := checkSHA(req.GetSha()); err != nil {
			return nil, err
		}
	}
	client, repository, err := s.repository(ctx, g)
	if err != nil {
		return nil, notYet(err, s.recent(req.GetEventTime()))
	}
	if req.GetTag() != "" {
		found, err := commitOfTag(ctx, client, g, req.GetTag())
		found.Repository = repository
		return found, notYet(err, s.recent(req.GetEventTime()))
	}
	found := &configv1.FindCommitResponse{
		Repository: repository, Branch: cmp.Or(req.GetBranch(), repository.GetDefaultBranch()), Sha: req.GetSha(),
	}
	ref, _, err := client.Git.GetRef(ctx, g.owner, g.name, "refs/heads/"+found.GetBranch())
	if err != nil {
		return nil, fmt.Errorf("branch %s: %w", found.GetBranch(), githubFault(err))
	}
	tip := ref.GetObject().GetSHA()
	found.Sha = cmp.Or(found.GetSha(), tip)
	if found.Newest = found.GetSha() == tip; !found.GetNewest() {
		relation, err := compare(ctx, client, g, tip, found.GetSha())
		if fault.Is(err, fault.NotFound) || (err == nil && relation != configv1.CompareCommitsResponse_RELATION_BEHIND) {
			return nil, fault.Newf(fault.NotFound, "branch %s of %s does not hold the commit %s", found.GetBranch(), g.fullName(), found.GetSha())
		}
		if err != nil {
			return nil, fmt.Errorf("compare %s with branch %s: %w", found.GetSha(), found.GetBranch(), err)
		}
	}
	commit, _, err := client.Repositories.GetCommit(ctx, g.owner, g.name, found.GetSha(), nil)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", found.GetSha(), githubFault(err))
	}
	title, _, _ := strings.Cut(commit.GetCommit().GetMessage(), "\n")
	found.Title = strings.TrimSpace(title)
	return found, nil
}
