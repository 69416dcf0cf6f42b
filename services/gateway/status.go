package gateway

import (
	"context"
	"sync"
	"time"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// engineAsked is how often at most the scheduler is asked for its engine: anybody
	// may ask for the status.
	engineAsked = 5 * time.Second
	// engineWithin is how long its answer may take: the status does not wait for it.
	engineWithin = time.Second
)

// engineStatus is what the scheduler said of its engine last.
type engineStatus struct {
	client schedulerv1.EngineServiceClient
	now    func() time.Time

	mu    sync.Mutex
	asked time.Time
	known *schedulerv1.GetEngineResponse // nil: it did not answer
}

func (e *engineStatus) get(ctx context.Context) *schedulerv1.GetEngineResponse {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.now(); e.asked.IsZero() || now.Sub(e.asked) >= engineAsked {
		ctx, cancel := context.WithTimeout(ctx, engineWithin)
		defer cancel()
		var err error
		if e.known, err = e.client.GetEngine(ctx, &schedulerv1.GetEngineRequest{}); err != nil {
			e.known = nil
		}
		e.asked = now
	}
	return e.known
}

// GetStatus says that the gateway serves, and how the engine does.
func (s *Service) GetStatus(ctx context.Context, _ *gatewayv1.GetStatusRequest) (*gatewayv1.GetStatusResponse, error) {
	engine := s.engine.get(ctx)
	return &gatewayv1.GetStatusResponse{
		Status: "up", Version: s.deps.Version, Engine: engine.GetName(), EngineAwayTime: engine.GetAwayTime(),
	}, nil
}
