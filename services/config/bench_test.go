package config

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// overTCP serves the world's config on loopback, as it is when it runs apart.
func (w *world) overTCP() *grpc.ClientConn {
	w.t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "config", Access: Access(), TrustLoopback: true})
	w.service.Register(server)
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	conn, err := rpc.Dial(lis.Addr().String(), rpc.Peer{Room: "scheduler"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return conn
}

// A config that is kept, against an empty call of the same server, turn by turn:
// ratio is between their medians.
func BenchmarkKeptConfig(b *testing.B) {
	w := newWorld(b)
	conn, sha := w.overTCP(), w.head()
	configs, health := configv1.NewBuildConfigServiceClient(conn), healthv1.NewHealthClient(conn)
	calls := []func() error{
		func() error {
			_, err := health.Check(b.Context(), &healthv1.HealthCheckRequest{})
			return err
		},
		func() error {
			answer, err := configs.GetBuildConfig(b.Context(), &configv1.GetBuildConfigRequest{Repository: w.repo, Sha: sha})
			if err == nil && answer.GetConfig() == nil {
				err = errors.New("no config")
			}
			return err
		},
	}
	took := make([][]time.Duration, len(calls))
	for b.Loop() {
		for n, call := range calls {
			start := time.Now()
			if err := call(); err != nil {
				b.Fatal(err)
			}
			took[n] = append(took[n], time.Since(start))
		}
	}
	var median []float64
	for _, all := range took {
		slices.Sort(all)
		median = append(median, float64(all[len(all)/2].Microseconds()))
	}
	b.ReportMetric(median[0], "empty-µs")
	b.ReportMetric(median[1], "config-µs")
	b.ReportMetric(median[1]/median[0], "ratio")
}

// A tarball of 500 MB, first downloaded, then kept. The memory is that of the
// whole process, the GitHub that sends and the scheduler that receives included.
func BenchmarkLargeSource(b *testing.B) {
	const size = 500 << 20
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	w := newWorld(b, withBlobs(b))
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, codeload) {
			return false
		}
		for range size / len(noise) {
			if _, err := out.Write(noise); err != nil {
				return true
			}
		}
		return true
	})
	client := configv1.NewSourceServiceClient(w.overTCP())
	peak := kittest.PeakRSS(b)
	before := w.calls("tarball")
	b.SetBytes(size)
	for b.Loop() {
		stream, err := client.GetSource(b.Context(), &configv1.GetSourceRequest{Repository: w.repo, InstallationId: w.install, Sha: w.head()})
		if err != nil {
			b.Fatal(err)
		}
		got := 0
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			got += len(part.GetData())
		}
		if got != size {
			b.Fatalf("%d bytes", got)
		}
	}
	if n := w.calls("tarball") - before; n != 1 {
		b.Errorf("%d downloads", n)
	}
	b.ReportMetric(peak(), "RSS-MiB")
}
