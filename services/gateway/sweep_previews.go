package gateway

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// sweepPreviews stores that pull requests with a preview were closed, as far as no
// delivery told of that, and returns what is new. GitHub is asked about each of them: a
// preview ends where it says that this one is closed, and by nothing else.
func (r *recovery) sweepPreviews(ctx context.Context, kind sweepKind) ([]string, error) {
	asked, err := r.previewed(ctx)
	if len(asked) == 0 || err != nil {
		return nil, err
	}
	stream, err := r.pulls.ListClosedPullRequests(ctx, &configv1.ListClosedPullRequestsRequest{PullRequests: asked, Frugal: kind == routineSweep})
	if err != nil {
		return nil, fmt.Errorf("sweep previews: %w", err)
	}
	return keepAll(stream, "previews", func(found *configv1.ListClosedPullRequestsResponse) ([]string, error) {
		event, err := decodePullRequest(found.GetPayload())
		if err != nil {
			return nil, fmt.Errorf("closed pull request: %w", err)
		}
		return r.keepPull(ctx, pullStateOf(event), found.GetPayload()) // as its webhook would have told it
	})
}

// previewed are the pull requests with a preview. Each look begins at another one, since
// a frugal one may not come to the end.
func (r *recovery) previewed(ctx context.Context) ([]*eventv1.PullRequestName, error) {
	var all []*eventv1.PullRequestName
	for token := ""; ; {
		page, err := r.previews.ListPreviewedPullRequests(ctx, &schedulerv1.ListPreviewedPullRequestsRequest{PageSize: rpc.LargestPage, PageToken: token})
		if status.Code(err) == codes.Unimplemented {
			return nil, nil // a scheduler that is not upgraded yet
		}
		if err != nil {
			return nil, fmt.Errorf("ask the scheduler for previews: %w", err)
		}
		all = append(all, page.GetPullRequests()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	first := int(r.deps.Random() * float64(len(all)))
	return append(all[first:len(all):len(all)], all[:first]...), nil
}
