package attempt

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// maxEstimates bounds of how many builds this process knows what people were told.
	maxEstimates = 10_000
	// estimateSlack is what an estimate may be wrong by in any case.
	estimateSlack = 5 * time.Second
)

// estimate is when somebody was told when a build is placed.
type estimate struct{ told, placed time.Time }

// The outcomes of estimates.
const (
	estimateRight = "right"
	estimateEarly = "early"
	estimateLate  = "late"
)

// Told takes note that somebody was told when a build, or the first of its jobs, is
// placed. What was told first counts: later it is easy to say.
func (s *Service) Told(id string, placed time.Time) {
	s.estimates.ContainsOrAdd(id, estimate{s.now(), placed})
}

// settleEstimate counts how right it was what somebody was told here of a build that is
// placed now. It was wrong if that came earlier or later by more than half of the wait.
func (s *Service) settleEstimate(ctx context.Context, b *store.Build, now time.Time) {
	for _, id := range []string{b.GetId(), b.GetPartOf()} {
		e, found := s.estimates.Peek(id)
		if !found || !s.estimates.Remove(id) {
			continue
		}
		outcome, most := estimateRight, max(e.placed.Sub(e.told)/2, estimateSlack)
		switch off := now.Sub(e.placed); {
		case off > most:
			outcome = estimateLate
		case off < -most:
			outcome = estimateEarly
		}
		s.metrics.estimates.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

func newEstimates() (*lru.Cache[string, estimate], error) {
	return lru.New[string, estimate](maxEstimates)
}
