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

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// ListChangedPullRequests implements configv1.PullRequestServiceServer.
func (s *Service) ListChangedPullRequests(req *configv1.ListChangedPullRequestsRequest, stream grpc.ServerStreamingServer[configv1.ListChangedPullRequestsResponse]) error {
	if !req.GetSince().IsValid() {
		return fault.New(fault.Invalid, "since is missing")
	}
	reads := github.InstallationPermissions{Metadata: new("read"), PullRequests: new("read")}
	return s.everyRepository(stream.Context(), req.GetFrugal(), reads, func(ctx context.Context, client *github.Client, in *github.Repository, installation int64) (calls int, err error) {
		return listChangedIn(ctx, client, in, installation, req.GetSince().AsTime(), stream.Send)
	})
}

// look looks at a repository, and returns how many calls that took.
type look func(ctx context.Context, client *github.Client, in *github.Repository, installation int64) (calls int, err error)

// everyRepository looks at all repositories of the App. frugal spends a share of the
// calls that GitHub allows.
func (s *Service) everyRepository(ctx context.Context, frugal bool, reads github.InstallationPermissions, at look) error {
	if _, err := s.installations.refresh(ctx); err != nil {
		return err
	}
	for _, installation := range s.installations.all() {
		if installation.GetSuspendTime() != nil {
			continue
		}
		if err := s.everyRepositoryOf(ctx, installation, frugal, reads, at); err != nil {
			return fmt.Errorf("repositories of %s: %w", installation.GetAccount(), err)
		}
	}
	return nil
}

// everyRepositoryOf looks at those of one installation. One that GitHub refuses, such
// as a blocked one, is left out.
func (s *Service) everyRepositoryOf(ctx context.Context, of *configv1.Installation, frugal bool, reads github.InstallationPermissions, at look) error {
	cfg := s.clients.base
	wide := &wideToken{app: s.installations.app, installation: of.GetId(), reads: reads, now: s.now}
	cfg.Tokens, cfg.JustMade = wide, wide.justMade
	client, err := kitgithub.New(cfg)
	if err != nil {
		return err
	}
	all, rate, err := repositories(ctx, client)
	if err != nil {
		return err
	}
	calls := math.MaxInt
	if frugal && rate.Limit > 0 {
		calls = rate.Limit / 10
		if rate.Remaining < rate.Limit/2 {
			calls = 0
		}
	}
	for n, repository := range all {
		if calls <= 0 {
			s.log.InfoContext(ctx, "look at repositories stopped early: the other calls to GitHub are left to builds", "account", of.GetAccount(), "repositories_left_out", len(all)-n)
			return nil
		}
		spent, err := at(ctx, client, repository, of.GetId())
		calls -= spent
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) {
			s.log.WarnContext(ctx, "look at a repository failed; it is left out", "repository", repository.GetFullName(), "error", err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", repository.GetFullName(), err)
		}
	}
	return nil
}

// repositories returns all that are not archived, the last pushed to first, and how
// many calls GitHub has left for the installation.
func repositories(ctx context.Context, client *github.Client) (all []*github.Repository, left github.Rate, err error) {
	options := &github.ListOptions{PerPage: 100}
	for {
		page, resp, err := client.Apps.ListRepos(ctx, options)
		if err != nil {
			return nil, left, githubFault(err)
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

// listChangedIn finds the changed pull requests of one repository, and returns how
// many calls that took.
func listChangedIn(ctx context.Context, client *github.Client, in *github.Repository, installation int64, since time.Time, found func(*configv1.ListChangedPullRequestsResponse) error) (calls int, err error) {
	owner, name := in.GetOwner().GetLogin(), in.GetName()
	numbers, calls, err := changedSince(ctx, client, owner, name, since)
	if err != nil {
		return calls, err
	}
	for _, number := range slices.Backward(numbers) { // the oldest change first
		pull, _, err := client.PullRequests.Get(ctx, owner, name, number) // the list leaves out some fields
		calls++
		if err != nil {
			return calls, githubFault(err)
		}
		event := &github.PullRequestEvent{
			Action: new("synchronize"), Number: pull.Number, PullRequest: pull, Repo: in, Sender: pull.User,
			Installation: &github.Installation{ID: new(installation)},
		}
		sha := pull.GetHead().GetSHA()
		switch {
		case pull.GetMerged():
			event, sha = closedEvent(pull, in, installation), pull.GetMergeCommitSHA()
		case pull.GetState() != "open":
			continue // it asks for nothing to be built
		case pull.GetHead().GetRepo().GetID() != in.GetID():
			event.Sender = nil // it is not known who pushed to the fork, so nobody has approved the commit
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

// changedSince lists the numbers of pull requests, the last changed first, and
// returns how many calls that took.
func changedSince(ctx context.Context, client *github.Client, owner, name string, since time.Time) (numbers []int, calls int, err error) {
	options := &github.PullRequestListOptions{State: "all", Sort: "updated", Direction: "desc", ListOptions: github.ListOptions{PerPage: 100}}
	for {
		page, resp, err := client.PullRequests.List(ctx, owner, name, options)
		calls++
		if err != nil {
			return nil, calls, githubFault(err)
		}
		for _, pull := range page {
			if pull.GetUpdatedAt().Before(since.Truncate(time.Second)) { // GitHub leaves out fractions of seconds
				return numbers, calls, nil
			}
			numbers = append(numbers, pull.GetNumber())
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return numbers, calls, nil
		}
	}
}

// wideToken is a token that reads in all repositories of an installation. It serves
// one look at them and is given to no other room.
type wideToken struct {
	app          *github.AppsService
	installation int64
	reads        github.InstallationPermissions
	now          func() time.Time
	made         *github.InstallationToken
	madeAt       time.Time
}

// Token implements kitgithub.TokenSource.
func (w *wideToken) Token(ctx context.Context) (string, error) {
	if w.made == nil || time.Until(w.made.GetExpiresAt().Time) < minValidity {
		made, _, err := w.app.CreateInstallationToken(ctx, w.installation, &github.InstallationTokenOptions{
			Permissions: &w.reads,
		})
		if err != nil {
			return "", appFault(err)
		}
		w.made, w.madeAt = made, w.now()
	}
	return w.made.GetToken(), nil
}

func (w *wideToken) justMade(string) bool { return w.now().Sub(w.madeAt) < kitgithub.TokenLag }

// Expire implements kitgithub.TokenSource.
func (w *wideToken) Expire(string) { w.made = nil }
