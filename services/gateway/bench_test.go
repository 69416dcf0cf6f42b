package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/kit/rpc"
)

func readFull(r *http.Request, body []byte) (int, error) { return io.ReadFull(r.Body, body) }

// bench makes a gateway whose receivers do not answer, and the function that
// runs its writer and returns the one that stops it.
func bench(b *testing.B) (*Service, func() func()) {
	b.Helper()
	pipe := rpc.NewPipe()
	conn, err := pipe.Dial("gateway", nil)
	if err != nil {
		b.Fatal(err)
	}
	gate, err := New(Deps{
		DB: open(b), Secrets: []string{secret}, AllowedIPs: []string{"any"}, Self: conn,
		Receivers: map[string]grpc.ClientConnInterface{"config": conn, "scheduler": conn, "reporter": conn},
	})
	if err != nil {
		b.Fatal(err)
	}
	return gate, func() func() {
		ctx, cancel := context.WithCancel(b.Context())
		var running sync.WaitGroup
		running.Go(func() { gate.inbox.run(ctx) })
		return func() {
			cancel()
			running.Wait()
			conn.Close()
		}
	}
}

// drive posts the payload over 64 connections.
func drive(b *testing.B, payload []byte, signature string, handler http.Handler) {
	b.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	var next atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+"/v1/listen", bytes.NewReader(payload))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header = http.Header{
				"Content-Type": {"application/json"}, "X-Github-Event": {"pull_request"},
				"X-Github-Delivery": {benchID(next.Add(1))}, "X-Hub-Signature-256": {signature},
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			if resp.StatusCode != http.StatusOK {
				b.Errorf("%s", resp.Status)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
