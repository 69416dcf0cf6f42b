package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// told is what became of a delivery, a line per receiver.
func told(d *gatewayv1.Delivery) string {
	var lines []string
	for _, f := range d.GetForwards() {
		lines = append(lines, fmt.Sprintf("%s: %s %s", f.GetReceiver(), strings.TrimPrefix(f.GetDecision().GetReason().String(), "REASON_"), f.GetDecision().GetText()))
	}
	return strings.Join(lines, "\n")
}

func TestEveryDeliveryEndsWithADecision(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		w := start(t, open(), nil)
		w.rooms.answers("reporter", func(*eventv1.Event) (*eventv1.Decision, error) {
			return nil, fault.New(fault.Invalid, "no such account")
		})
		for i, c := range []struct {
			event, payload, want string
		}{
			{"pull_request", string(sample(t, "pull_request")), "scheduler: NOTED noted by scheduler"},
			{"push", string(sample(t, "push")), "config: NOTED noted by config\nscheduler: NOTED noted by scheduler"},
			{"installation", string(sample(t, "installation")), "config: NOTED noted by config\nreporter: MALFORMED malformed: no such account\nscheduler: NOTED noted by scheduler"},
			{"ping", string(sample(t, "ping")), "gateway: NOTED the webhook works: Keep it logically awesome."},
			{"ping", `{"hook_id":1}`, "gateway: NOTED the webhook works"},
			{"star", string(star), "gateway: EVENT_IGNORED ignored: no receiver for event star"},
			{"star", "nonsense", "gateway: MALFORMED malformed: not readable as JSON: invalid character 'o' in literal null (expecting 'u')"},
			{"pull_request", "{", "scheduler: MALFORMED malformed: not readable as JSON: unexpected end of JSON input"},
			{"pull_request", string(star), "scheduler: MALFORMED malformed: no pull_request in the payload"},
			{"push", "\x00\xff", "config: MALFORMED malformed: not readable as JSON: invalid character '\\x00' looking for beginning of value\n" +
				"scheduler: MALFORMED malformed: not readable as JSON: invalid character '\\x00' looking for beginning of value"},
			{"star", `{"action":"\u0000x","repository":{"id":1,"name":"b\ud800","full_name":"a/b"}}`, "gateway: EVENT_IGNORED ignored: no receiver for event star"},
		} {
			id := fmt.Sprintf("d%d", i)
			if code, body := w.post(hook{event: c.event, id: id, body: []byte(c.payload)}); code != 200 {
				t.Fatalf("%s: %d %s", id, code, body)
			}
			d := w.ends(id)
			if got := told(d); got != c.want {
				t.Errorf("%s %s: %s\nwant %s", id, c.event, got, c.want)
			}
			if string(d.GetPayload()) != c.payload {
				t.Errorf("%s: payload is %q", id, d.GetPayload())
			}
		}
		e := w.rooms.received("scheduler")[0]
		if e.GetDeliveryId() != "d0" || e.GetName() != "pull_request" || e.GetReceiveTime() == nil || e.GetPullRequest() == nil {
			t.Errorf("the scheduler got %v", e)
		}
	})
}

func TestReceiverThatIsDownDelaysOnlyItsOwn(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixMicro())
	w := onSQLite(t, func(d *Deps) { d.Now = func() time.Time { return time.UnixMicro(now.Load()) } })
	var up atomic.Bool
	w.rooms.answers("config", func(*eventv1.Event) (*eventv1.Decision, error) {
		if up.Load() {
			return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted"}, nil
		}
		return nil, fault.New(fault.Unavailable, "away for lunch")
	})
	w.post(hook{event: "push", id: "p1", body: sample(t, "push")})
	var d *gatewayv1.Delivery
	kittest.Eventually(t, patience, func() error {
		resp, err := w.deliveries().GetDelivery(admin(t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: "p1"})
		if err != nil {
			return err
		}
		d = resp.GetDelivery()
		if d.GetForwards()[0].GetError() == "" || d.GetForwards()[1].GetDecision() == nil {
			return errors.New("not tried at both")
		}
		return nil
	})
	config := d.GetForwards()[0]
	if d.GetState() != gatewayv1.Delivery_STATE_PENDING || config.GetError() != "away for lunch" || config.GetAttempts() != 1 || config.GetDecision() != nil {
		t.Errorf("while config is down: %v", d)
	}
	if pause := config.GetNextTryTime().AsTime().Sub(time.UnixMicro(now.Load())); pause < firstPause/2 || pause > firstPause {
		t.Errorf("it is tried again after %v", pause)
	}
	up.Store(true)
	now.Add(firstPause.Microseconds())
	w.service.wake()
	if d := w.ends("p1"); d.GetState() != gatewayv1.Delivery_STATE_DECIDED || d.GetForwards()[0].GetAttempts() != 2 || d.GetForwards()[0].GetError() != "" {
		t.Errorf("once config is up: %v", d)
	}
	if scheduler, config := len(w.rooms.received("scheduler")), len(w.rooms.received("config")); scheduler != 1 || config != 2 {
		t.Errorf("the scheduler was asked %d times, config %d times", scheduler, config)
	}
}

// A receiver that hangs on to more than it is sent at once delays nobody else.
func TestReceiverThatHangsDelaysOnlyItsOwn(t *testing.T) {
	const n = 2 * relayWorkers
	w := onSQLite(t, nil)
	release := make(chan struct{})
	w.rooms.answers("config", func(*eventv1.Event) (*eventv1.Decision, error) {
		<-release
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted at last"}, nil
	})
	for i := range n {
		w.post(hook{event: "push", id: fmt.Sprintf("h%d", i), body: sample(t, "push")})
	}
	kittest.Eventually(t, patience, func() error {
		if got := len(w.rooms.received("scheduler")); got != n {
			return fmt.Errorf("the scheduler got %d", got)
		}
		return nil
	})
	if got := len(w.rooms.received("config")); got > relayWorkers {
		t.Errorf("config got %d at once", got)
	}
	close(release)
	for i := range n {
		if d := w.ends(fmt.Sprintf("h%d", i)); d.GetForwards()[0].GetDecision().GetText() != "noted at last" {
			t.Errorf("%v", d)
		}
	}
}

func TestTriesRunOutAfterADayAndTheDeliveryIsKept(t *testing.T) {
	r := relay{bounds: boundsOfRooms(), deps: Deps{Now: func() time.Time { return time.Unix(1000, 0) }, Random: func() float64 { return 1 }}}
	broken := errors.New("no")
	var waited time.Duration
	f := forward{state: pending}
	for f.attempts = 1; ; f.attempts++ {
		if f = r.outcome(f, nil, broken, false); f.state != pending {
			break
		}
		waited += f.due.Sub(time.Unix(1000, 0))
	}
	if waited < 24*time.Hour {
		t.Errorf("given up after %v", waited)
	}
	if f.state != kept || f.decision.GetReason() != eventv1.Reason_REASON_GAVE_UP || f.decision.GetText() != "gave up after 3000 tries: no" {
		t.Errorf("%+v", f)
	}
	if got := stateOf([]forward{{state: decided}, f}); got != gatewayv1.Delivery_STATE_KEPT {
		t.Errorf("state %v", got)
	}
	if got := r.outcome(forward{state: pending, attempts: 3000}, nil, broken, true); got.state != pending || got.attempts != 2999 {
		t.Errorf("a stop counts as a try: %+v", got)
	}
}

// What is no decision is none: the receiver is asked again.
func TestNonsenseOfAReceiverIsNoDecision(t *testing.T) {
	for name, nonsense := range map[string]func() (*eventv1.Decision, error){
		"nothing":                   func() (*eventv1.Decision, error) { return nil, nil }, //nolint:nilnil // that is the nonsense
		"text without reason":       func() (*eventv1.Decision, error) { return &eventv1.Decision{Text: "built"}, nil },
		"no UTF-8":                  func() (*eventv1.Decision, error) { return &eventv1.Decision{Text: "\xff"}, nil },
		"an error of another world": func() (*eventv1.Decision, error) { return nil, errors.New("\xff\x00") },
		"a code that is none":       func() (*eventv1.Decision, error) { return nil, status.Error(4711, "huh") },
		"a method that is not there": func() (*eventv1.Decision, error) {
			return nil, status.Error(codes.Unimplemented, "unknown service")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := onSQLite(t, nil)
			var asked atomic.Int32
			w.rooms.answers("scheduler", func(*eventv1.Event) (*eventv1.Decision, error) {
				if asked.Add(1) == 1 {
					return nonsense()
				}
				return &eventv1.Decision{Reason: eventv1.Reason_REASON_BUILT, Text: "built", BuildIds: []string{"b1"}}, nil
			})
			w.post(hook{event: "pull_request", id: "p1", body: sample(t, "pull_request")})
			if d := w.ends("p1"); !slices.Equal(d.GetForwards()[0].GetDecision().GetBuildIds(), []string{"b1"}) || d.GetForwards()[0].GetAttempts() != 2 {
				t.Errorf("%v", d)
			}
		})
	}
}

func TestWhatWasStoredIsRelayedAfterARestart(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		store := store{db: db}
		a := &arrival{delivery: delivery{guid: "r1", event: "pull_request", received: time.Now()}, payload: packed(sample(t, "pull_request"))}
		if err := store.insert(t.Context(), []*arrival{a, a}); err != nil {
			t.Fatal(err)
		}
		// The gateway dies with the delivery in its hands.
		claimedUntil := time.Now().Add(due.Lease)
		if db.Dialect == sqldb.Postgres {
			claimedUntil = time.Now() // where a lease is waited for
		}
		if claimed, err := store.claim(t.Context(), "scheduler", 8, time.Now(), claimedUntil); err != nil || len(claimed) != 1 {
			t.Fatalf("%v %v", claimed, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		w := start(t, open(), nil)
		if d := w.ends("r1"); told(d) != "scheduler: NOTED noted by scheduler" || d.GetForwards()[0].GetAttempts() != 2 {
			t.Errorf("%v", d)
		}
	})
}

func TestAStopGivesTheDeliveryBack(t *testing.T) {
	db := open(t)
	w := start(t, db, nil)
	asked, release := make(chan struct{}, 1), make(chan struct{})
	w.rooms.answers("scheduler", func(*eventv1.Event) (*eventv1.Decision, error) {
		asked <- struct{}{}
		<-release
		return nil, fault.New(fault.Unavailable, "too late")
	})
	w.post(hook{event: "pull_request", id: "s1", body: sample(t, "pull_request")})
	<-asked
	var stopping sync.WaitGroup
	stopping.Go(w.stop)
	kittest.Eventually(t, patience, func() error { // the loop drains for 5 s first
		found, err := w.service.store.forwards(t.Context(), 1)
		if err != nil {
			return err
		}
		if f := found[1][0]; f.err != "Forge was stopped meanwhile" || f.attempts != 0 || f.due.After(time.Now()) {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	close(release)
	stopping.Wait()
	w = start(t, db, nil)
	if d := w.ends("s1"); d.GetForwards()[0].GetAttempts() != 1 || d.GetForwards()[0].GetError() != "" {
		t.Errorf("%v", d)
	}
}

func TestTwoGatewaysShareTheWork(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		if db.Dialect == sqldb.SQLite {
			return // one gateway only
		}
		one, other := start(t, db, nil), start(t, open(), nil)
		for i := range 40 {
			w := []*world{one, other}[i%2]
			if code, body := w.post(hook{event: "pull_request", id: fmt.Sprintf("s%d", i/2), body: sample(t, "pull_request")}); code != 200 {
				t.Fatalf("%d %s", code, body)
			}
		}
		for i := range 20 {
			one.ends(fmt.Sprintf("s%d", i))
		}
		seen := map[string]int{}
		for _, e := range append(one.rooms.received("scheduler"), other.rooms.received("scheduler")...) {
			seen[e.GetDeliveryId()]++
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was relayed %d times", id, n)
			}
		}
		if len(seen) != 20 || one.count() != 20 {
			t.Errorf("%d relayed, %d stored", len(seen), one.count())
		}
	})
}

func TestOneTraceFromTheRequestToTheReceiver(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	w := onSQLite(t, func(d *Deps) { d.Tracer = tracer })
	req := hook{event: "pull_request", id: "t1", body: sample(t, "pull_request")}.request(t, w.http.URL)
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	w.do(req)
	if got := w.ends("t1").GetTraceId(); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the delivery's trace is %q", got)
	}
	w.stop()
	parents := map[string]string{}
	names := map[string]string{}
	for _, s := range spans.Ended() {
		names[s.SpanContext().SpanID().String()] = s.Name() + " " + s.SpanKind().String()
	}
	for _, s := range spans.Ended() {
		if s.SpanContext().TraceID().String() == "0af7651916cd43dd8448eb211c80319c" {
			parents[names[s.SpanContext().SpanID().String()]] = names[s.Parent().SpanID().String()]
		}
	}
	method := "forge.scheduler.v1.EventService/ReceiveEvent"
	for child, parent := range map[string]string{
		"POST /v1/listen server":                   "",
		"relay pull_request to scheduler consumer": "POST /v1/listen server",
		method + " client":                         "relay pull_request to scheduler consumer",
		method + " server":                         method + " client",
	} {
		if got, ok := parents[child]; !ok || got != parent {
			t.Errorf("%s is below %q (%v), want %q", child, got, ok, parent)
		}
	}
}
