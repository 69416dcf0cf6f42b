package scheduler

import (
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// stopping is why tests are cancelled.
type stopping struct {
	which            func(*build) bool // nil: all of the pull request
	reason           schedulerv1.Build_Reason
	message, because string // for the builds, and for the decision
}

// halt cancels what somebody wants stopped.
func (s *Service) halt(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	why := stopping{
		reason:  schedulerv1.Build_REASON_CANCEL_ASKED,
		message: "asked for by " + p.event.GetSender().GetLogin(), because: p.event.GetSender().GetLogin() + " asked for it",
	}
	if p.build != "" {
		why.which = func(b *build) bool { return b.GetId() == p.build }
	}
	return s.cancelTests(ctx, t, p, why)
}

func (s *Service) cancelTests(ctx context.Context, t *tx, p planned, why stopping) (*eventv1.Decision, error) {
	unfinished, err := t.unfinishedTests(ctx, p.event.GetRepository().GetId(), p.pull.GetNumber())
	if err != nil {
		return nil, err
	}
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_CANCELLED, Text: "cancelled: " + why.because}
	for _, b := range unfinished {
		if why.which != nil && !why.which(b) {
			continue
		}
		if err := s.cancel(ctx, t, b, why.reason, why.message); err != nil {
			return nil, err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	if len(decided.GetBuildIds()) == 0 {
		return ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "%s, and nothing of it was queued or running", why.because), nil
	}
	return decided, nil
}
