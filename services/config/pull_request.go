package config

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// ListChangedPullRequests implements configv1.PullRequestServiceServer.
func (s *Service) ListChangedPullRequests(req *configv1.ListChangedPullRequestsRequest, stream grpc.ServerStreamingServer[configv1.ListChangedPullRequestsResponse]) error {
	if !req.GetSince().IsValid() {
		return fault.New(fault.Invalid, "since is missing")
	}
	ctx := stream.Context()
	if _, err := s.installations.refresh(ctx); err != nil {
		return err
	}
	for _, installation := range s.installations.all() {
		if installation.GetSuspendTime() != nil {
			continue
		}
		if err := s.sweep(ctx, installation, req, stream.Send); err != nil {
			return fmt.Errorf("pull requests of %s: %w", installation.GetAccount(), err)
		}
	}
	return nil
}

// GetPullRequest implements configv1.PullRequestServiceServer.
func (s *Service) GetPullRequest(ctx context.Context, req *configv1.GetPullRequestRequest) (*configv1.GetPullRequestResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	noun := fmt.Sprintf("read #%d of %s", req.GetNumber(), g.fullName())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, err)
	}
	p, _, err := client.PullRequests.Get(ctx, g.owner, g.name, int(req.GetNumber()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, failure(err))
	}
	return &configv1.GetPullRequestResponse{PullRequest: &eventv1.PullRequest{
		Number: req.GetNumber(), Title: p.GetTitle(), HtmlUrl: p.GetHTMLURL(), Open: p.GetState() == "open",
		Merged: p.GetMerged(), Draft: p.GetDraft(), MergeCommitSha: p.GetMergeCommitSHA(),
		Author:      &eventv1.Account{Login: p.GetUser().GetLogin()},
		CommitCount: int32(p.GetCommits()), //nolint:gosec // GitHub lists 250 at most
		Head:        pullBranch(p.GetHead()), Base: pullBranch(p.GetBase()),
		UpdateTime: timestamppb.New(p.GetUpdatedAt().Time),
	}}, nil
}

// pullBranch has no repository where that is gone.
func pullBranch(b *github.PullRequestBranch) *eventv1.PullRequestBranch {
	branch := &eventv1.PullRequestBranch{Ref: b.GetRef(), Sha: b.GetSHA()}
	if of := b.GetRepo(); of != nil {
		branch.Repository = &eventv1.Repository{Id: of.GetID(), Owner: of.GetOwner().GetLogin(), Name: of.GetName()}
	}
	return branch
}

// sweep finds the changed pull requests of one installation. What is refused, as
// an archived or blocked repository is, is left out.
func (s *Service) sweep(ctx context.Context, of *configv1.Installation, req *configv1.ListChangedPullRequestsRequest, found func(*configv1.ListChangedPullRequestsResponse) error) error {
	cfg := s.clients.base
	cfg.Tokens = &wideToken{app: s.installations.app, installation: of.GetId()}
	client, err := kitgithub.New(cfg)
	if err != nil {
		return err
	}
	all, rate, err := repositories(ctx, client)
	if err != nil {
		return err
	}
	calls := math.MaxInt
	if req.GetFrugal() && rate.Limit > 0 {
		calls = rate.Limit / 10
		if rate.Remaining < rate.Limit/2 {
			calls = 0
		}
	}
	for n, repository := range all {
		if calls <= 0 {
			s.log.InfoContext(ctx, "sweep cut short, to leave GitHub's calls to builds", "account", of.GetAccount(), "repositories_left_out", len(all)-n)
			return nil
		}
		spent, err := sweepRepository(ctx, client, repository, of.GetId(), req.GetSince().AsTime(), found)
		calls -= spent
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) {
			s.log.WarnContext(ctx, "repository left out of the sweep", "repository", repository.GetFullName(), "error", err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", repository.GetFullName(), err)
		}
	}
	return nil
}

// repositories are all that are in use, the last pushed to first, and what GitHub
// says of the calls that are left.
func repositories(ctx context.Context, client *github.Client) (all []*github.Repository, left github.Rate, err error) {
	options := &github.ListOptions{PerPage: 100}
	for {
		page, resp, err := client.Apps.ListRepos(ctx, options)
		if err != nil {
			return nil, left, failure(err)
		}
		all, left = append(all, page.Repositories...), resp.Rate
		if options.Page = resp.NextPage; options.Page == 0 {
			break
		}
	}
	all = slices.DeleteFunc(all, func(r *github.Repository) bool { return r.GetArchived() })
	slices.SortStableFunc(all, func(a, b *github.Repository) int { return b.GetPushedAt().Compare(a.GetPushedAt().Time) })
	return all, left, nil
}

// sweepRepository also returns how many calls it made.
func sweepRepository(ctx context.Context, client *github.Client, in *github.Repository, installation int64, since time.Time, found func(*configv1.ListChangedPullRequestsResponse) error) (calls int, err error) {
	owner, name := in.GetOwner().GetLogin(), in.GetName()
	numbers, calls, err := changedSince(ctx, client, owner, name, since)
	if err != nil {
		return calls, err
	}
	for _, number := range slices.Backward(numbers) { // the oldest change first
		pull, _, err := client.PullRequests.Get(ctx, owner, name, number) // a list has less of each
		calls++
		if err != nil {
			return calls, failure(err)
		}
		event := github.PullRequestEvent{
			Action: new("synchronize"), Number: pull.Number, PullRequest: pull, Repo: in, Sender: pull.User,
			Installation: &github.Installation{ID: new(installation)},
		}
		sha := pull.GetHead().GetSHA()
		switch {
		case pull.GetMerged():
			event.Action, event.Sender, sha = new("closed"), pull.MergedBy, pull.GetMergeCommitSHA()
		case pull.GetState() != "open":
			continue // nothing to test or deploy
		case pull.GetHead().GetRepo().GetID() != in.GetID():
			event.Sender = nil // who pushed to a fork is not known, so nobody vouches for it
		}
		payload, err := json.Marshal(event)
		if err != nil {
			return calls, fmt.Errorf("pull request %d: %w", number, err)
		}
		err = found(&configv1.ListChangedPullRequestsResponse{
			RepositoryId: in.GetID(), Number: int32(number), Sha: sha, Payload: payload, //nolint:gosec // GitHub counts from 1
		})
		if err != nil {
			return calls, err
		}
	}
	return calls, nil
}

// changedSince lists pull requests by number, the last change first, and how many
// calls that took.
func changedSince(ctx context.Context, client *github.Client, owner, name string, since time.Time) (numbers []int, calls int, err error) {
	options := &github.PullRequestListOptions{State: "all", Sort: "updated", Direction: "desc", ListOptions: github.ListOptions{PerPage: 100}}
	for {
		page, resp, err := client.PullRequests.List(ctx, owner, name, options)
		calls++
		if err != nil {
			return nil, calls, failure(err)
		}
		for _, pull := range page {
			if pull.GetUpdatedAt().Before(since.Truncate(time.Second)) { // as GitHub writes moments
				return numbers, calls, nil
			}
			numbers = append(numbers, pull.GetNumber())
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return numbers, calls, nil
		}
	}
}

// wideToken reads pull requests in all repositories of an installation. It is
// made for one sweep and given to no other room.
type wideToken struct {
	app          *github.AppsService
	installation int64
	made         *github.InstallationToken
}

// Token implements kitgithub.TokenSource.
func (w *wideToken) Token(ctx context.Context) (string, error) {
	if w.made == nil || time.Until(w.made.GetExpiresAt().Time) < spare {
		made, _, err := w.app.CreateInstallationToken(ctx, w.installation, &github.InstallationTokenOptions{
			Permissions: &github.InstallationPermissions{Metadata: new("read"), PullRequests: new("read")},
		})
		if err != nil {
			return "", appFailure(err)
		}
		w.made = made
	}
	return w.made.GetToken(), nil
}

// Expire implements kitgithub.TokenSource.
func (w *wideToken) Expire(string) { w.made = nil }
