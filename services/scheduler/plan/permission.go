package plan

import (
	"context"
	"fmt"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// What no event can be trusted to tell is asked of GitHub, by config: the
// scheduler holds no token.

// mayWrite reports whether somebody has write access to the event's repository.
// What an event says of it can be stale. Bots have none.
func (s *Service) mayWrite(ctx context.Context, event *eventv1.Event, who *eventv1.Account) (bool, error) {
	if who.GetLogin() == "" || who.GetType() == eventv1.Account_TYPE_BOT {
		return false, nil
	}
	answer, err := s.Collaborators.GetPermission(ctx, &configv1.GetPermissionRequest{
		Repository: event.GetRepository(), InstallationId: event.GetInstallationId(), Login: who.GetLogin(), EventTime: event.GetReceiveTime(),
	})
	if err != nil {
		return false, err
	}
	return answer.GetPermission() >= configv1.GetPermissionResponse_PERMISSION_WRITE, nil
}

// pullRequest is a pull request of the event's repository as it is now.
func (s *Service) pullRequest(ctx context.Context, event *eventv1.Event, number int32) (*eventv1.PullRequest, error) {
	answer, err := s.Pulls.GetPullRequest(ctx, &configv1.GetPullRequestRequest{
		Repository: event.GetRepository(), InstallationId: event.GetInstallationId(), Number: number, EventTime: event.GetReceiveTime(),
	})
	if err != nil {
		return nil, fmt.Errorf("#%d: %w", number, err)
	}
	return answer.GetPullRequest(), nil
}
