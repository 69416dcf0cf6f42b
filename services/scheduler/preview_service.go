package scheduler

import (
	"context"
	"fmt"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// previewService tells rooms of previews.
type previewService struct {
	schedulerv1.UnimplementedPreviewServiceServer
	store *store.Store
}

// ListPreviewedPullRequests lists pull requests that have a preview.
func (s previewService) ListPreviewedPullRequests(ctx context.Context, req *schedulerv1.ListPreviewedPullRequestsRequest) (*schedulerv1.ListPreviewedPullRequestsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after store.PullRequestKey
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.RepositoryID, &after.Number); err != nil {
		return nil, err
	}
	found, err := store.PreviewedPullRequests(ctx, s.store.DB.Read(), after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list pull requests with previews: %w", err)
	}
	answer := &schedulerv1.ListPreviewedPullRequestsResponse{}
	answer.PullRequests, answer.NextPageToken = rpc.CutPage(found, size, func(last *eventv1.PullRequestName) []any {
		return []any{last.GetRepository().GetId(), last.GetNumber()}
	})
	return answer, nil
}
