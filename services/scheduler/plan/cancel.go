package plan

import (
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// cancellation is why tests are cancelled.
type cancellation struct {
	which            func(*store.Build) bool // nil: all of the pull request
	reason           schedulerv1.Build_Reason
	message, because string // for the builds, and for the decision
}

// applyCancel cancels what somebody wants stopped.
func (s *Service) applyCancel(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	why := cancellation{
		reason:  schedulerv1.Build_REASON_CANCEL_ASKED,
		message: "asked for by " + p.Event.GetSender().GetLogin(), because: p.Event.GetSender().GetLogin() + " asked for it",
	}
	if p.Build != "" {
		why.which = func(b *store.Build) bool { return b.GetId() == p.Build }
	}
	return s.cancelTests(ctx, t, p, why)
}

func (s *Service) cancelTests(ctx context.Context, t *store.Tx, p prepared, why cancellation) (*eventv1.Decision, error) {
	unfinished, err := t.UnfinishedTests(ctx, p.Event.GetRepository().GetId(), p.Pull.GetNumber())
	if err != nil {
		return nil, err
	}
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_CANCELLED, Text: "cancelled: " + why.because}
	for _, b := range unfinished {
		if why.which != nil && !why.which(b) {
			continue
		}
		if err := s.attempts.Cancel(ctx, t, b, why.reason, why.message); err != nil {
			return nil, err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	if len(decided.GetBuildIds()) == 0 {
		return wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "%s, and nothing of it was queued or running", why.because), nil
	}
	return decided, nil
}
