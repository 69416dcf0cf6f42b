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

// Estimates are what people were told here of when builds are placed.
type Estimates struct {
	first   *lru.Cache[string, estimate] // by the id of the build
	metrics *metrics
	now     func() time.Time
}

// The outcomes of estimates.
const (
	estimateRight = "right"
	estimateEarly = "early"
	estimateLate  = "late"
)

// Told takes note that somebody was told when a build, or the first of its jobs, is
// placed. What was told first counts: later it is easy to say.
func (e *Estimates) Told(id string, placed time.Time) {
	e.first.ContainsOrAdd(id, estimate{e.now(), placed})
}

// settle counts how right it was what somebody was told here of a build that is
// placed now. It was wrong if that came earlier or later by more than half of the wait.
func (e *Estimates) settle(ctx context.Context, b *store.Build) {
	for _, id := range []string{b.GetId(), b.GetPartOf()} {
		of, found := e.first.Peek(id)
		if !found || !e.first.Remove(id) {
			continue
		}
		outcome, most := estimateRight, max(of.placed.Sub(of.told)/2, estimateSlack)
		switch off := e.now().Sub(of.placed); {
		case off > most:
			outcome = estimateLate
		case off < -most:
			outcome = estimateEarly
		}
		e.metrics.estimates.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

func newEstimates(m *metrics, now func() time.Time) (*Estimates, error) {
	first, err := lru.New[string, estimate](maxEstimates)
	return &Estimates{first: first, metrics: m, now: now}, err
}
