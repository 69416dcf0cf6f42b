package plan

import (
	"cmp"
	"context"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Apply does what an event, or a call, asks for, and decides about it.
func (s *Service) Apply(ctx context.Context, event *eventv1.Event, intents []trigger.Intent) (*eventv1.Decision, error) {
	all, early, err := prepareAll(ctx, s, intents)
	if len(all) == 0 || err != nil {
		return early, err
	}
	var decided *eventv1.Decision
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		var pulls []*store.PullRequest
		for _, p := range all {
			pull, err := t.PullRequest(ctx, event.GetRepository().GetId(), p.Pull.GetNumber())
			if err != nil {
				return err
			}
			pulls = append(pulls, pull)
		}
		var err error
		if decided, err = store.Decision(ctx, t, event); decided != nil || err != nil {
			return err
		}
		if decided, err = replayed(ctx, t, event, all); decided != nil || err != nil {
			return err
		}
		for n, p := range all {
			of, err := applied(ctx, s, t, event, p, pulls[n])
			if err != nil {
				return err
			}
			if p.Kind == trigger.PullRequestEnded {
				decided = alongside(decided, of)
			} else {
				decided = join(decided, of)
			}
		}
		if decided == nil && early != nil { // GitHub may answer otherwise another time
			decided = early
			return nil
		}
		decided = alongside(early, decided)
		return remember(ctx, t, event, decided)
	})
	return decided, err
}

// prepareAll asks for what the plans of several intents need. A decision says why one of
// them comes to nothing, and so do all; but a pull request that was closed has ended,
// whatever becomes of its merge.
func prepareAll(ctx context.Context, s *Service, intents []trigger.Intent) (all []prepared, early *eventv1.Decision, err error) {
	for n, i := range intents {
		p, decided, err := s.prepare(ctx, i)
		switch {
		case err != nil:
			return nil, nil, err
		case decided != nil && n+1 < len(intents) && intents[len(intents)-1].Kind == trigger.PullRequestEnded:
			early = decided
			continue
		case decided != nil:
			return nil, decided, nil
		}
		all = append(all, p)
		if p.Kind == trigger.Pushed {
			besides, err := deploying{s}.besides(ctx, p)
			if err != nil {
				return nil, nil, err
			}
			all = append(all, besides...)
		}
	}
	return all, early, nil
}

// remember stores what was decided about an event, and that its repository may have
// schedules. A call has neither.
func remember(ctx context.Context, t *store.Tx, event *eventv1.Event, decided *eventv1.Decision) error {
	if event.GetDeliveryId() == "" {
		return nil
	}
	err := (store.Timetable{Tx: t}).NoticeRepository(ctx, event)
	if decided == nil || err != nil {
		return err
	}
	return t.AddDecision(ctx, event, decided, nil)
}

// join makes one decision of several. What was done counts before what was not.
func join(a, b *eventv1.Decision) *eventv1.Decision {
	if a == nil {
		return b
	}
	if len(a.GetBuildIds()) == 0 || (a.GetReason() == eventv1.Reason_REASON_DUPLICATE && len(b.GetBuildIds()) > 0) {
		a, b = b, a
	}
	a.BuildIds = append(a.BuildIds, b.GetBuildIds()...)
	return a
}

// alongside adds what was decided besides, which may be nothing.
func alongside(decided, besides *eventv1.Decision) *eventv1.Decision {
	if decided == nil || besides == nil {
		return cmp.Or(decided, besides)
	}
	return joinCommands([]*eventv1.Decision{decided, besides})
}
