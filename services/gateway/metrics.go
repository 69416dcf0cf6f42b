package gateway

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/wording"
)

// metrics are what the gateway counts itself.
type metrics struct {
	deliveries metric.Int64Counter
	took       metric.Float64Histogram
}

// soon are bounds for a decision, which mostly takes less than a second, and hours where
// a room is away.
var soon = metric.WithExplicitBucketBoundaries(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)

func newMetrics(meter metric.Meter) (*metrics, error) {
	deliveries, err := meter.Int64Counter("forge.gateway.deliveries",
		metric.WithDescription("Decisions about deliveries, by event, receiver and decision."))
	if err != nil {
		return nil, err
	}
	took, err := meter.Float64Histogram("forge.gateway.decided", metric.WithUnit("s"), soon,
		metric.WithDescription("How long after a delivery came its receiver had decided about it, by receiver."))
	return &metrics{deliveries, took}, err
}

// settled records what a try has come to.
func (m *metrics) settled(ctx context.Context, d delivery, f forward) {
	if f.state == pending {
		return
	}
	event := d.event
	if _, routed := routes[event]; !routed {
		event = "other"
	}
	to := attribute.String("receiver", f.receiver)
	m.deliveries.Add(ctx, 1, metric.WithAttributes(to, attribute.String("event", event), attribute.String("decision", wording.Value(f.decision.GetReason()))))
	m.took.Record(ctx, f.decided.Sub(d.received).Seconds(), metric.WithAttributes(to))
}

// observe has an operator see how far behind each receiver is. How deliveries are
// answered the HTTP server's own metrics tell.
func (s *Service) observe(meter metric.Meter) error {
	undecided, err := meter.Int64ObservableGauge("forge.gateway.undecided",
		metric.WithDescription("Deliveries that a receiver has still to decide about."))
	if err != nil {
		return err
	}
	age, err := meter.Float64ObservableGauge("forge.gateway.undecided.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest delivery that a receiver has still to decide about; 0: there is none."))
	if err != nil {
		return err
	}
	kept, err := meter.Int64ObservableGauge("forge.gateway.kept",
		metric.WithDescription("Deliveries that a receiver could not decide about until tries ran out, kept for a person."))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		behind, err := s.store.behind(ctx)
		if err != nil {
			s.deps.Log.WarnContext(ctx, "metrics lack how far behind receivers are", "error", err)
			return nil
		}
		for _, r := range s.relays {
			b, to := behind[r.receiver], metric.WithAttributes(attribute.String("receiver", r.receiver))
			o.ObserveInt64(undecided, b.undecided, to)
			o.ObserveInt64(kept, b.kept, to)
			seconds := 0.0
			if b.undecided > 0 {
				seconds = s.deps.Now().Sub(sqldb.Time(b.oldest)).Seconds()
			}
			o.ObserveFloat64(age, seconds, to)
		}
		return nil
	}, undecided, age, kept)
	if err != nil || s.tls == nil {
		return err
	}
	return telemetry.Expires(s.deps.Meter, "HTTPS", s.shown.until)
}

// backlog is what a receiver has not decided.
type backlog struct {
	undecided, kept int64
	oldest          int64 // when the first of the undecided was received, microseconds
}

// behind is the backlog of each receiver that has one.
func (s *store) behind(ctx context.Context) (map[string]backlog, error) {
	all := map[string]backlog{}
	scan := func(row sqldb.Row) (receiver string, err error) {
		var b backlog
		err = row.Scan(&receiver, &b.undecided, &b.kept, &b.oldest)
		all[receiver] = b
		return receiver, err
	}
	_, err := sqldb.Collect(ctx, s.db.Read(), scan, `SELECT o.receiver, o.undecided, o.kept, COALESCE(d.received, 0) FROM (
		SELECT receiver, SUM(CASE state WHEN 1 THEN 1 ELSE 0 END) AS undecided, SUM(CASE state WHEN 3 THEN 1 ELSE 0 END) AS kept,
			MIN(CASE state WHEN 1 THEN delivery END) AS oldest FROM forwards WHERE state <> 2 GROUP BY receiver
		) AS o LEFT JOIN deliveries AS d ON d.id = o.oldest`)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("count what is undecided: %w", err))
	}
	return all, nil
}
