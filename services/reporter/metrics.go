package reporter

import (
	"context"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
)

// metrics are what an operator watches: how far behind GitHub is, and why.
type metrics struct{ calls metric.Int64Counter }

func (s *Service) newMetrics(meter metric.Meter) (*metrics, error) {
	calls, err := meter.Int64Counter("forge.reporter.calls",
		metric.WithDescription("Calls of GitHub's API, by kind of target and outcome."))
	if err != nil {
		return nil, err
	}
	untold, err := meter.Float64ObservableGauge("forge.reporter.untold.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest thing that GitHub is still to be told; 0: it knows all."))
	if err != nil {
		return nil, err
	}
	remaining, err := meter.Int64ObservableGauge("forge.reporter.calls.remaining",
		metric.WithDescription("Calls that GitHub grants until the hour is over, of the installation that has the fewest left."))
	if err != nil {
		return nil, err
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		since, err := s.store.oldestUnpublished(ctx)
		if err != nil {
			s.deps.Log.WarnContext(ctx, "metrics lack for how long GitHub is to be told", "error", err)
			return nil
		}
		age := 0.0
		if !since.IsZero() {
			age = s.deps.Now().Sub(since).Seconds()
		}
		o.ObserveFloat64(untold, age)
		if left := slices.Collect(maps.Values(s.limiter.remainingCalls())); len(left) > 0 {
			o.ObserveInt64(remaining, int64(slices.Min(left)))
		}
		return nil
	}, untold, remaining)
	return &metrics{calls}, err
}

func (m *metrics) called(ctx context.Context, kind reporterv1.Target_Kind, c call) {
	name := strings.ToLower(strings.TrimPrefix(kind.String(), "KIND_"))
	m.calls.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", name), attribute.String("outcome", c.outcome())))
}
