package config

import (
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// GetPullRequest implements configv1.PullRequestServiceServer.
func (s *Service) GetPullRequest(ctx context.Context, req *configv1.GetPullRequestRequest) (*configv1.GetPullRequestResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	noun := fmt.Sprintf("read #%d of %s", req.GetNumber(), g.fullName())
	recent := s.recent(req.GetEventTime())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, notYet(err, recent))
	}
	p, _, err := client.PullRequests.Get(ctx, g.owner, g.name, int(req.GetNumber()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, notYet(githubFault(err), recent))
	}
	var labels []string
	for _, label := range p.Labels {
		labels = append(labels, label.GetName())
	}
	shown := &eventv1.PullRequest{
		Number: req.GetNumber(), Title: p.GetTitle(), HtmlUrl: p.GetHTMLURL(), Open: p.GetState() == "open",
		Merged: p.GetMerged(), Draft: p.GetDraft(), MergeCommitSha: p.GetMergeCommitSHA(),
		Author:      authorOf(p.GetUser()),
		CommitCount: int32(p.GetCommits()), //nolint:gosec // GitHub lists 250 at most
		Head:        pullBranch(p.GetHead()), Base: pullBranch(p.GetBase()),
		UpdateTime: timestamppb.New(p.GetUpdatedAt().Time), Labels: labels,
	}
	if p.ClosedAt != nil {
		shown.CloseTime = timestamppb.New(p.GetClosedAt().Time)
	}
	return &configv1.GetPullRequestResponse{PullRequest: shown}, nil
}

// pullBranch converts a side of a pull request. It has no repository where GitHub
// has none any more.
func pullBranch(b *github.PullRequestBranch) *eventv1.PullRequestBranch {
	branch := &eventv1.PullRequestBranch{Ref: b.GetRef(), Sha: b.GetSHA()}
	if of := b.GetRepo(); of != nil {
		branch.Repository = &eventv1.Repository{Id: of.GetID(), Owner: of.GetOwner().GetLogin(), Name: of.GetName()}
	}
	return branch
}

func authorOf(u *github.User) *eventv1.Account {
	kinds := map[string]eventv1.Account_Type{"User": eventv1.Account_TYPE_USER, "Bot": eventv1.Account_TYPE_BOT}
	return &eventv1.Account{Id: u.GetID(), Login: u.GetLogin(), Type: kinds[u.GetType()]}
}
