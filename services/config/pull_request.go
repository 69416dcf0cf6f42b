package config

import (
	"context"
	"encoding/json"
	"fmt"
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
	ctx := stream.Context()
	if _, err := s.installations.refresh(ctx); err != nil {
		return err
	}
	for _, installation := range s.installations.all() {
		if installation.GetSuspendTime() != nil {
			continue
		}
		if err := s.sweep(ctx, installation, req.GetSince().AsTime(), stream.Send); err != nil {
			return fmt.Errorf("pull requests of %s: %w", installation.GetAccount(), err)
		}
	}
	return nil
}

// sweep finds the changed pull requests of one installation. What is refused, as
// an archived or blocked repository is, is left out.
func (s *Service) sweep(ctx context.Context, of *configv1.Installation, since time.Time, found func(*configv1.ListChangedPullRequestsResponse) error) error {
	cfg := s.clients.base
	cfg.Tokens = &wideToken{app: s.installations.app, installation: of.GetId()}
	client, err := kitgithub.New(cfg)
	if err != nil {
		return err
	}
	options := &github.ListOptions{PerPage: 100}
	for {
		page, resp, err := client.Apps.ListRepos(ctx, options)
		if err != nil {
			return failure(err)
		}
		for _, repository := range page.Repositories {
			if repository.GetArchived() {
				continue
			}
			err := sweepRepository(ctx, client, repository, of.GetId(), since, found)
			if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied) {
				s.log.WarnContext(ctx, "repository left out of the sweep", "repository", repository.GetFullName(), "error", err)
			} else if err != nil {
				return fmt.Errorf("%s: %w", repository.GetFullName(), err)
			}
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return nil
		}
	}
}

func sweepRepository(ctx context.Context, client *github.Client, in *github.Repository, installation int64, since time.Time, found func(*configv1.ListChangedPullRequestsResponse) error) error {
	owner, name := in.GetOwner().GetLogin(), in.GetName()
	numbers, err := changedSince(ctx, client, owner, name, since)
	if err != nil {
		return err
	}
	for _, number := range slices.Backward(numbers) { // the oldest change first
		pull, _, err := client.PullRequests.Get(ctx, owner, name, number) // a list has less of each
		if err != nil {
			return failure(err)
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
		}
		payload, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("pull request %d: %w", number, err)
		}
		err = found(&configv1.ListChangedPullRequestsResponse{
			RepositoryId: in.GetID(), Number: int32(number), Sha: sha, Payload: payload, //nolint:gosec // GitHub counts from 1
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// changedSince lists pull requests by number, the last change first.
func changedSince(ctx context.Context, client *github.Client, owner, name string, since time.Time) ([]int, error) {
	var numbers []int
	options := &github.PullRequestListOptions{State: "all", Sort: "updated", Direction: "desc", ListOptions: github.ListOptions{PerPage: 100}}
	for {
		page, resp, err := client.PullRequests.List(ctx, owner, name, options)
		if err != nil {
			return nil, failure(err)
		}
		for _, pull := range page {
			if pull.GetUpdatedAt().Before(since.Truncate(time.Second)) { // as GitHub writes moments
				return numbers, nil
			}
			numbers = append(numbers, pull.GetNumber())
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return numbers, nil
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
