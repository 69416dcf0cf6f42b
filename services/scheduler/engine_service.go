package scheduler

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// GetEngine says how the engine does.
func (s *Service) GetEngine(ctx context.Context, _ *schedulerv1.GetEngineRequest) (*schedulerv1.GetEngineResponse, error) {
	answer := &schedulerv1.GetEngineResponse{Name: s.deps.Engine.Name()}
	away, err := s.attempts.EngineAway(ctx)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if !away.IsZero() {
		answer.AwayTime = timestamppb.New(away)
	}
	return answer, nil
}
