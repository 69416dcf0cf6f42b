package gateway

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestMetricsSayHowFarBehindReceiversAre(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		reader := sdkmetric.NewManualReader()
		var now atomic.Int64
		now.Store(time.Now().UnixMicro())
		w := start(t, open(), func(d *Deps) {
			d.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
			d.Now = func() time.Time { return time.UnixMicro(now.Load()) }
		})
		w.rooms.answers("config", func(*eventv1.Event) (*eventv1.Decision, error) { return nil, errors.New("out of order") })
		w.post(hook{event: "push", id: "p1", body: sample(t, "push")})
		w.post(hook{event: "push", id: "p2", body: sample(t, "push")})
		kittest.Eventually(t, patience, func() error {
			if kittest.Metric(t, reader, "forge.gateway.undecided", "receiver=scheduler") != 0 {
				return errors.New("the scheduler has not decided")
			}
			return nil
		})
		now.Add(90_000_000)
		for name, want := range map[string]float64{"undecided": 2, "undecided.age": 90, "kept": 0} {
			if got := kittest.Metric(t, reader, "forge.gateway."+name, "receiver=config"); got != want {
				t.Errorf("%s of config is %v, want %v", name, got, want)
			}
		}
		if age := kittest.Metric(t, reader, "forge.gateway.undecided.age", "receiver=scheduler"); age != 0 {
			t.Errorf("the scheduler is %v s behind", age)
		}
		d, err := w.service.store.byGUID(t.Context(), "p1")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.service.store.settle(t.Context(), []settlement{{forward{delivery: d.id, receiver: "config", state: kept}, summary{}}}); err != nil {
			t.Fatal(err)
		}
		if n := kittest.Metric(t, reader, "forge.gateway.kept", "receiver=config"); n != 1 {
			t.Errorf("%v kept", n)
		}
	})
}

func TestRefusedSourcesAreCounted(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	w := onSQLite(t, func(d *Deps) {
		d.Webhook.AllowedIPs, d.Meter = []string{"203.0.113.0/24"}, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	})
	w.post(hook{event: "star", id: "a1", body: star})
	if n := kittest.Metric(t, reader, "forge.gateway.refused_sources"); n != 1 {
		t.Errorf("%v counted", n)
	}
}
