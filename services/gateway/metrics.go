package gateway

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

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
			return err
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
	return err
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
