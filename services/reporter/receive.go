package reporter

import (
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// ReceiveEvent acts on an installation or a repository that has changed.
func (s *Service) ReceiveEvent(ctx context.Context, req *reporterv1.ReceiveEventRequest) (*reporterv1.ReceiveEventResponse, error) {
	event := req.GetEvent()
	if event == nil {
		return nil, fault.New(fault.Invalid, "the request lacks its event")
	}
	decision, err := s.decide(ctx, event)
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.ReceiveEventResponse{Decision: decision}, nil
}

func (s *Service) decide(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	switch payload := event.GetPayload().(type) {
	case *eventv1.Event_Installation:
		return s.installationChanged(ctx, event, payload.Installation.GetAccount().GetLogin())
	case *eventv1.Event_RepositoryChanged:
		return s.repositoryChanged(ctx, event)
	default:
		return wording.Ignored(eventv1.Reason_REASON_EVENT_IGNORED, "event %s", event.GetName()), nil
	}
}

func (s *Service) installationChanged(ctx context.Context, event *eventv1.Event, account string) (*eventv1.Decision, error) {
	id, now := event.GetInstallationId(), s.deps.Now()
	s.tokens.drop(id, 0) // they know the installation as it was
	switch event.GetAction() {
	case "suspend":
		// An event may be late: that it is suspended, config and GitHub say best
		// when something is to be told.
		return wording.Noted("installation of %s suspended: what is to be told waits until it is back", account), nil
	case "unsuspend":
		return wording.Noted("installation of %s is back: what has waited is told", account),
			s.store.resume(ctx, id, 0, now, reporterv1.Target_STATE_PAUSED)
	case "new_permissions_accepted":
		return wording.Noted("permissions of the installation of %s accepted: what was refused is tried again", account),
			s.store.resume(ctx, id, 0, now, reporterv1.Target_STATE_PAUSED, reporterv1.Target_STATE_KEPT)
	case "deleted":
		why := "the GitHub App was uninstalled from " + account
		return wording.Noted("%s: nothing more is told there", why), s.store.abandon(ctx, id, why, now)
	default:
		return wording.ActionIgnored(event), nil
	}
}

// repositoryChanged follows a repository that has moved, and tries what was
// refused under its old name. GitHub redirects from names that are no longer the
// newest, so the order of events does not matter.
func (s *Service) repositoryChanged(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	if action := event.GetAction(); action != "renamed" && action != "transferred" {
		return wording.ActionIgnored(event), nil
	}
	to := event.GetRepository()
	if err := s.store.move(ctx, to, event.GetInstallationId()); err != nil {
		return nil, err
	}
	return wording.Noted("repository is %s now", wording.FullName(to)),
		s.store.resume(ctx, 0, to.GetId(), s.deps.Now(), reporterv1.Target_STATE_FAILING, reporterv1.Target_STATE_KEPT)
}
