package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
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
		for _, name := range []string{"deliveries", "decided"} {
			kittest.Eventually(t, patience, func() error { // a decision is counted once it is stored
				if n, _ := kittest.FindMetric(t, reader, "forge.gateway."+name, "receiver=scheduler"); n != 2 {
					return fmt.Errorf("%v %s of the scheduler", n, name)
				}
				return nil
			})
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

// The name of an event is a header: what is in no table is counted as one.
func TestEventsWithoutARouteAreCountedAsOne(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	w := onSQLite(t, func(d *Deps) { d.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)) })
	w.post(hook{event: "star", id: "s1", body: star})
	w.post(hook{event: "watch-of-tomorrow", id: "s2", body: star})
	kittest.Eventually(t, patience, func() error {
		if n, _ := kittest.FindMetric(t, reader, "forge.gateway.deliveries", "event=other", "decision=event ignored"); n != 2 {
			return fmt.Errorf("%v are counted", n)
		}
		return nil
	})
}

func TestTheEndOfACertificateIsMeasured(t *testing.T) {
	dir := t.TempDir()
	files := TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writePair(t, files, 1)
	reader := sdkmetric.NewManualReader()
	w := onSQLite(t, func(d *Deps) { d.Meter, d.TLS = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), files })
	if at, found := kittest.FindMetric(t, reader, "forge.certificate.expiry"); found {
		t.Errorf("before it was shown to anybody it ends at %v", at)
	}
	if _, err := w.service.tls.GetCertificate(&tls.ClientHelloInfo{ServerName: "localhost"}); err != nil {
		t.Fatal(err)
	}
	left := time.Until(time.Unix(int64(kittest.Metric(t, reader, "forge.certificate.expiry", "certificate=HTTPS")), 0))
	if left <= 0 || left > time.Hour {
		t.Errorf("it ends in %v, want an hour", left)
	}
}
