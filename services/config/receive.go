package config

import (
	"context"
	"fmt"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// ReceiveEvent implements configv1.EventServiceServer.
func (s *Service) ReceiveEvent(ctx context.Context, req *configv1.ReceiveEventRequest) (*configv1.ReceiveEventResponse, error) {
	event := req.GetEvent()
	if event == nil {
		return nil, fault.New(fault.Invalid, "the request lacks its event")
	}
	decision, err := s.decide(ctx, event)
	if err != nil {
		return nil, err
	}
	return &configv1.ReceiveEventResponse{Decision: decision}, nil
}

func (s *Service) decide(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	switch payload := event.GetPayload().(type) {
	case *eventv1.Event_Installation:
		return s.reloadInstallation(ctx, event, payload.Installation.GetAccount().GetLogin(), "")
	case *eventv1.Event_InstallationRepositories:
		change := payload.InstallationRepositories
		for _, gone := range change.GetRemoved() {
			s.forgetRepository(gone)
		}
		return s.reloadInstallation(ctx, event, change.GetAccount().GetLogin(),
			fmt.Sprintf(": repositories added %d, removed %d", len(change.GetAdded()), len(change.GetRemoved())))
	case *eventv1.Event_RepositoryChanged:
		return s.repositoryChanged(event, payload.RepositoryChanged), nil
	case *eventv1.Event_Push:
		// A commit does not change, so what is cached of it stays valid. The build of
		// this very push may be about to ask for it.
		return wording.Noted("nothing to drop: what is cached of %s belongs to commits", wording.FullName(event.GetRepository())), nil
	default:
		return wording.Ignored(eventv1.Reason_REASON_EVENT_IGNORED, "event %s", event.GetName()), nil
	}
}

// reloadInstallation asks GitHub how an installation is, whatever the event says:
// the event may be an old one.
func (s *Service) reloadInstallation(ctx context.Context, event *eventv1.Event, account, more string) (*eventv1.Decision, error) {
	id := event.GetInstallationId()
	found, err := s.installations.reload(ctx, id)
	state := "learnt"
	switch {
	case fault.Is(err, fault.NotFound):
		state = "removed"
	case err != nil:
		return nil, err
	case found.GetSuspendTime() != nil:
		state = "suspended"
	}
	// Tokens that were made before may have other permissions now, or none.
	s.tokens.dropWhere(func(key tokenKey, _ token) bool { return key.installation == id })
	return wording.Noted("installation of %s %s%s", account, state, more), nil
}

func (s *Service) repositoryChanged(event *eventv1.Event, change *eventv1.RepositoryEvent) *eventv1.Decision {
	now := event.GetRepository()
	s.forgetRepository(now)
	before := &eventv1.Repository{Owner: now.GetOwner(), Name: now.GetName()}
	if name := change.GetPreviousName(); name != "" {
		before.Name = name
	}
	if owner := change.GetPreviousOwner(); owner != "" {
		before.Owner = owner
	}
	s.forgetRepository(before)
	return wording.Noted("repository %s %s: what was cached of it is dropped", wording.FullName(now), event.GetAction())
}

// forgetRepository drops the tokens of a repository, by its id and by its name, and
// its build configs.
func (s *Service) forgetRepository(repository *eventv1.Repository) {
	g := grant{repository: repository.GetId(), owner: repository.GetOwner(), name: repository.GetName()}
	byName := g
	byName.repository = 0
	s.tokens.dropWhere(func(key tokenKey, _ token) bool {
		return key.repository == g.repositoryKey() || key.repository == byName.repositoryKey()
	})
	for _, cached := range s.configs.Keys() {
		if cached.repository == g.repository {
			s.configs.Remove(cached)
		}
	}
}
