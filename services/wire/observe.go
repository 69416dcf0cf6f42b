package wire

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sys/unix"

	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// beside answers HTTP where gRPC is served: operators reach it, and nobody from outside.
// No metric names a repository or a person, so none who reads them needs a token; who
// sends spans needs that of the admin, since a build may reach the address, too.
func beside(tel *telemetry.Telemetry, admin string, rooms ...*Room) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", tel.Metrics)
	for _, room := range rooms {
		if room.Spans != nil {
			tel.Keep(room.Spans)
		}
		if room.OTLP != nil {
			mux.Handle("POST /v1/traces", forAdmin(admin, room.OTLP))
		}
	}
	return mux
}

// forAdmin lets through who shows the admin token.
func forAdmin(admin string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !bearer || admin == "" || subtle.ConstantTimeCompare([]byte(shown), []byte(admin)) != 1 {
			http.Error(w, "this needs the admin token: add the header 'authorization: Bearer <FORGE_ADMIN_TOKEN>'", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// observe has an operator see what a process lives on: the disk of its data, and until
// when the certificate of its gRPC address holds.
func observe(tel *telemetry.Telemetry, s settings.Common, c settings.Certificate) error {
	meter := tel.Meter.Meter("forge/wire")
	free, err := meter.Int64ObservableGauge("forge.disk.free", metric.WithUnit("By"),
		metric.WithDescription("Space that is left on the disk of the data directory."))
	size, err2 := meter.Int64ObservableGauge("forge.disk.size", metric.WithUnit("By"),
		metric.WithDescription("How large the disk of the data directory is."))
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	data := metric.WithAttributes(attribute.String("volume", "data"))
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		var disk unix.Statfs_t
		if err := unix.Statfs(s.DataDir, &disk); err != nil {
			tel.Log.WarnContext(ctx, "the disk of the data directory does not say how full it is", "error", err)
			return nil
		}
		block := disk.Bsize
		o.ObserveInt64(free, int64(disk.Bavail)*block, data) //nolint:gosec // no disk has 2^63 bytes
		o.ObserveInt64(size, int64(disk.Blocks)*block, data) //nolint:gosec // see above
		return nil
	}, free, size)
	if err != nil || c.TLSCert == "" {
		return err
	}
	until, err := c.Until()
	if err != nil {
		return err
	}
	return telemetry.Expires(tel.Meter, "gRPC", func() time.Time { return until })
}
