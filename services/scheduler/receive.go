package scheduler

import (
	"context"
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// ReceiveEvent plans what an event asks for.
func (s *Service) ReceiveEvent(ctx context.Context, req *schedulerv1.ReceiveEventRequest) (*schedulerv1.ReceiveEventResponse, error) {
	event := req.GetEvent()
	if event.GetDeliveryId() == "" {
		return nil, fault.New(fault.Invalid, "an event needs the id of its delivery")
	}
	decided, err := s.plan.Decide(ctx, event)
	if err != nil {
		return nil, fmt.Errorf("delivery %s: %w", event.GetDeliveryId(), err)
	}
	s.deps.Log.InfoContext(ctx, "event decided", "delivery", event.GetDeliveryId(), "event", event.GetName(),
		"action", event.GetAction(), "decision", decided.GetText(), "builds", decided.GetBuildIds())
	return &schedulerv1.ReceiveEventResponse{Decision: decided}, nil
}
