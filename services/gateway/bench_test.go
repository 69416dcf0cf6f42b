package gateway

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// What is measured is compared within one run: against a bare handler that reads
// a body, checks its signature and keeps nothing. TEST_PEER_URL=http://… has the
// same client measure any other receiver of webhooks with the secret "hush".

const connections = 64

// target is a receiver of webhooks and what was measured of it.
type target struct {
	name string
	url  string
	took time.Duration
	each []time.Duration
	// settle, if there, returns when what was answered is done with; that takes the
	// target's time too.
	settle func()
}

func (t *target) rate() float64 { return float64(len(t.each)) / t.took.Seconds() }

func (t *target) p99() float64 {
	slices.Sort(t.each)
	return float64(t.each[len(t.each)*99/100].Microseconds()) / 1000
}

// client posts one payload again and again, as GitHub would.
type client struct {
	transport http.Transport
	payload   []byte
	signature string
	next      atomic.Int64
}

func newClient(b *testing.B) *client {
	b.Helper()
	payload := kittest.RealPayloads(b)["pull_request.opened"]
	if payload == nil {
		payload = slices.Concat(pullRequestPayload()[:1], []byte(`"pad":"`), bytes.Repeat([]byte("lorem ipsum "), 2000), []byte(`",`), pullRequestPayload()[1:])
	}
	c := &client{payload: payload, signature: sign(payload), transport: http.Transport{MaxIdleConnsPerHost: connections}}
	b.Cleanup(c.transport.CloseIdleConnections)
	return c
}

// drive posts n deliveries over all connections.
func (c *client) drive(b *testing.B, t *target, n int) {
	b.Helper()
	var (
		mu      sync.Mutex
		left    atomic.Int64
		sending sync.WaitGroup
	)
	left.Store(int64(n))
	begin := time.Now()
	for range connections {
		sending.Go(func() {
			var each []time.Duration
			for left.Add(-1) >= 0 {
				sent := time.Now()
				if err := c.post(b.Context(), t.url); err != nil {
					b.Errorf("%s: %v", t.name, err)
					return
				}
				each = append(each, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			t.each = append(t.each, each...)
		})
	}
	sending.Wait()
	t.took += time.Since(begin)
}

func (c *client) post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(c.payload))
	if err != nil {
		return err
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "X-Github-Event": {"pull_request"},
		"X-Github-Delivery": {benchID(c.next.Add(1))}, "X-Hub-Signature-256": {c.signature},
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s", resp.Status)
	}
	return err
}

// benchID is spread over the index as GitHub's are.
func benchID(n int64) string {
	mixed := uint64(n) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("%08x-%04x-11f0-8000-%012x", mixed>>32, mixed>>16&0xffff, n)
}

// round is how many deliveries a target gets at a turn.
const round = 2000

// compare measures all targets in turn, in rounds, so that what else goes on
// around here hits all of them, and reports each one's ratio to the first.
func compare(b *testing.B, c *client, targets ...*target) {
	b.Helper()
	peak := kittest.PeakRSS(b)
	for b.Loop() {
		for _, t := range targets {
			c.drive(b, t, round)
			if t.settle != nil {
				begin := time.Now()
				t.settle()
				t.took += time.Since(begin)
			}
		}
	}
	for _, t := range targets {
		b.ReportMetric(t.rate(), t.name+"-req/s")
		b.ReportMetric(t.p99(), t.name+"-p99-ms")
		if t != targets[0] {
			b.ReportMetric(t.rate()/targets[0].rate(), t.name+"-ratio")
		}
	}
	b.ReportMetric(peak(), "rss-MB")
	b.ReportMetric(0, "ns/op") // the sum of all targets says nothing
}

// bare is the limit: it keeps nothing.
func bare(b *testing.B) *target {
	b.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil || !signed(body, []string{secret}, r.Header["X-Hub-Signature-256"], nil) {
			w.WriteHeader(http.StatusUnauthorized)
		}
		w.Write([]byte("{}"))
	}))
	b.Cleanup(server.Close)
	return &target{name: "bare", url: server.URL}
}

// running is a gateway that stores, and relays to rooms that ignore.
func running(b *testing.B, name string, db *sqldb.DB, relays bool) *target {
	b.Helper()
	pipe := rpc.NewPipe()
	conn, err := pipe.Dial("gateway", nil)
	if err != nil {
		b.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{Name: "rooms", Access: map[string]rpc.Access{
		schedulerv1.EventService_ReceiveEvent_FullMethodName: {Rooms: []string{"gateway"}},
	}})
	schedulerv1.RegisterEventServiceServer(server, ignoring{})
	service, err := New(Deps{
		DB: db, Webhook: Webhook{Secrets: []string{secret}, AllowedIPs: []string{"any"}}, Self: conn,
		Receivers: map[string]grpc.ClientConnInterface{"config": conn, "scheduler": conn, "reporter": conn},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var group sync.WaitGroup
	group.Go(func() { server.Serve(ctx, pipe) })
	group.Go(func() {
		if relays {
			service.Run(ctx)
		} else {
			service.inbox.run(ctx)
		}
	})
	http := httptest.NewServer(service.Handler())
	b.Cleanup(func() {
		http.Close()
		cancel()
		group.Wait()
		conn.Close()
	})
	return &target{name: name, url: http.URL + "/v1/listen"}
}

type ignoring struct {
	schedulerv1.UnimplementedEventServiceServer
}

func (ignoring) ReceiveEvent(context.Context, *schedulerv1.ReceiveEventRequest) (*schedulerv1.ReceiveEventResponse, error) {
	return &schedulerv1.ReceiveEventResponse{Decision: &eventv1.Decision{Reason: eventv1.Reason_REASON_ACTION_IGNORED, Text: "ignored"}}, nil
}

func BenchmarkIngest(b *testing.B) {
	targets := []*target{bare(b), running(b, "gateway", open(b), false)}
	if os.Getenv("TEST_POSTGRES_URL") != "" {
		db, err := sqldb.Open(b.Context(), sqldb.Config{URL: kittest.PostgresURL(b), Room: "gateway", Migrations: Migrations()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		targets = append(targets, running(b, "postgres", db, false))
	}
	if url := os.Getenv("TEST_PEER_URL"); url != "" {
		targets = append(targets, &target{name: "peer", url: url})
	}
	compare(b, newClient(b), targets...)
}

// The rate of what was answered and decided: the clock stops when nothing is
// pending any more.
func BenchmarkIngestWhileRelaying(b *testing.B) {
	db := open(b)
	relaying := running(b, "relaying", db, true)
	relaying.settle = func() {
		begin, tick := time.Now(), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for ; pendingForwards(b, db) > 0; <-tick.C {
			if time.Since(begin) > time.Minute {
				b.Fatal("the relay does not come to an end")
			}
		}
	}
	compare(b, newClient(b), bare(b), relaying)
}

func pendingForwards(b *testing.B, db *sqldb.DB) (n int) {
	b.Helper()
	if err := db.Read().QueryRowContext(b.Context(), "SELECT count(*) FROM forwards WHERE state = 1").Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

// A million deliveries are there already; it should matter little.
func BenchmarkIngestOnAMillion(b *testing.B) {
	dir := b.TempDir()
	full := openIn(b, dir)
	err := full.Write(b.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
			INSERT INTO deliveries (guid, event, headers, size, traceparent, received, repository)
			SELECT lower(hex(randomblob(16))), 'pull_request', '{"x-github-event":"pull_request"}', 24000, '', 1700000000000000 + i, 'acme/web' FROM n`)
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO forwards (delivery, receiver, due, state) SELECT id, 'scheduler', received, 2 FROM deliveries")
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := full.Close(); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	full = openIn(b, dir)
	million := running(b, "million", full, false)
	start := time.Since(begin)
	compare(b, newClient(b), running(b, "empty", open(b), false), million)
	b.ReportMetric(float64(start.Milliseconds()), "start-ms")
}

func openIn(b *testing.B, dir string) *sqldb.DB {
	b.Helper()
	db, err := sqldb.Open(b.Context(), sqldb.Config{Dir: dir, Room: "gateway", Migrations: Migrations()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}
