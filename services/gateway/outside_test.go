package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const outsideSecret = "a receiver's own"

// issue is a kind of event that Forge has no type for.
var issue = []byte("{ \"action\":\"opened\",\n \"issue\":{\"number\":3,\"title\":\"\\u00e9<b>\"},\"repository\":{\"id\":1,\"name\":\"shop\",\"full_name\":\"acme/shop\"}}")

// outside is a receiver of one's own.
type outside struct {
	*httptest.Server
	mu     sync.Mutex
	down   bool
	got    []*http.Request
	bodies [][]byte
	taken  map[string]int // by delivery: how often it was answered with success
	answer http.HandlerFunc
}

func newOutside(t *testing.T, answer http.HandlerFunc) *outside {
	t.Helper()
	o := &outside{answer: answer, taken: map[string]int{}}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.Close)
	return o
}

func (o *outside) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	o.got, o.bodies = append(o.got, r), append(o.bodies, body)
	down := o.down
	if !down {
		o.taken[r.Header.Get("X-Github-Delivery")]++
	}
	o.mu.Unlock()
	if down {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
		return
	}
	if o.answer != nil {
		o.answer(w, r)
	}
}

func (o *outside) set(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

// takes is how often it took a delivery.
func (o *outside) takes(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.taken[id]
}

// all are the requests that came.
func (o *outside) all() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.got)
}

// to forwards to a receiver, whatever happens anywhere.
func (o *outside) to(name string) Receiver {
	return Receiver{Name: name, URL: o.URL + "/hook?token=s3cret", Secret: outsideSecret}
}

func forwardingTo(receivers ...Receiver) func(*Deps) {
	return func(d *Deps) { d.Outside = Outside{Receivers: receivers, TryFor: 72 * time.Hour} }
}

func TestAReceiverGetsWhatGitHubSentAndHowItWasSigned(t *testing.T) {
	o := newOutside(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "\r\n queued as <b>7</b>\x1b[31m\nand more")
	})
	w := onSQLite(t, forwardingTo(o.to("triage")))
	w.post(hook{event: "issues", id: "i1", body: issue, header: map[string]string{"X-Github-Hook-Id": "292430182"}})
	if got := told(w.ends("i1")); got != "triage: NOTED accepted: 200 OK: queued as <b>7</b> [31m" {
		t.Errorf("%s", got)
	}
	form := "payload=" + strings.ReplaceAll(string(star), " ", "+")
	w.post(hook{event: "star", id: "s1", body: []byte(form), header: map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "X-Hub-Signature-256": sign([]byte(form)),
	}})
	w.ends("s1")
	for n, want := range []struct {
		event, id, body string
	}{{"issues", "i1", string(issue)}, {"star", "s1", string(star)}} {
		r, body := o.all()[n], string(o.bodies[n])
		if r.Method != http.MethodPost || r.URL.RequestURI() != "/hook?token=s3cret" || body != want.body || r.ContentLength != int64(len(body)) {
			t.Errorf("%s %s, %q", r.Method, r.URL, body)
		}
		for name, value := range map[string]string{
			"X-GitHub-Event": want.event, "X-GitHub-Delivery": want.id, "Content-Type": "application/json",
			"User-Agent": "GitHub-Hookshot/044aadd", "X-Hub-Signature-256": signBy(outsideSecret, []byte(body)),
		} {
			if got := r.Header.Get(name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
	}
	if o.all()[0].Header.Get("X-Github-Hook-Id") != "292430182" {
		t.Errorf("%v", o.all()[0].Header)
	}
	viewer, _ := w.signedIn()
	if _, page := viewer.get("/deliveries/i1"); !strings.Contains(page, "queued as &lt;b&gt;7&lt;/b&gt;") || strings.Contains(page, "<b>7") {
		t.Errorf("the page shows %s", page)
	}
}

func TestOnlyWhatAReceiverWantsIsForwarded(t *testing.T) {
	o := newOutside(t, nil)
	picky, shop := o.to("picky"), o.to("shop")
	picky.Events = []string{"issues", "installation"}
	shop.Repositories = []string{"Acme/*"}
	w := onSQLite(t, forwardingTo(picky, shop))
	for _, c := range []struct{ id, event, payload, want string }{
		{"a", "issues", string(issue), "picky: NOTED accepted: 200 OK\nshop: NOTED accepted: 200 OK"},
		{"b", "star", `{"repository":{"id":2,"name":"x","full_name":"other/x"}}`, "shop: NOT_ADDRESSED ignored: other/x is none of the receiver's repositories"},
		{"c", "star", `{}`, "shop: NOT_ADDRESSED ignored: it concerns none of the receiver's repositories"},
		{"d", "star", `nonsense`, "shop: MALFORMED malformed: not readable as JSON: invalid character 'o' in literal null (expecting 'u')"},
		{"e", "push", string(issue), "config: MALFORMED malformed: no ref in the payload\nscheduler: MALFORMED malformed: no ref in the payload\n" +
			"shop: MALFORMED malformed: no ref in the payload"},
		{"f", "ping", string(sample(t, "ping")), "gateway: NOTED the webhook works: Keep it logically awesome.\nshop: NOT_ADDRESSED ignored: it concerns none of the receiver's repositories"},
	} {
		w.post(hook{event: c.event, id: c.id, body: []byte(c.payload)})
		if got := told(w.ends(c.id)); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.id, got, c.want)
		}
	}
	if got := w.service.store.receiversOf("swept-1-2-3", "pull_request"); len(got) != 1 || got[0] != "scheduler" {
		t.Errorf("what Forge found by itself goes to %v", got)
	}
	if len(o.all()) != 2 {
		t.Errorf("%d were sent", len(o.all()))
	}
}

// quiet waits until what is due has been tried: of a try that goes on, the row is leased.
func (w *world) quiet(clock *kittest.Clock) {
	w.t.Helper()
	w.service.wake()
	kittest.Eventually(w.t, patience, func() error {
		now := clock.Now()
		busy, err := sqldb.Collect(w.t.Context(), w.service.store.db.Read(), func(row sqldb.Row) (to string, err error) { return to, row.Scan(&to) },
			"SELECT receiver FROM forwards WHERE state = 1 AND (due <= $1 OR due = $2)", sqldb.Micros(now), sqldb.Micros(now.Add(due.Lease)))
		if err == nil && slices.ContainsFunc(w.service.relays, func(r *relay) bool { return slices.Contains(busy, r.receiver) }) {
			err = fmt.Errorf("%d are tried", len(busy))
		}
		return err
	})
}

func TestAReceiverThatIsKilledForAnHourLosesNothing(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		clock := kittest.NewClock(time.Unix(1_800_000_000, 0))
		o, other := newOutside(t, nil), newOutside(t, nil)
		o.set(true)
		w := start(t, open(), func(d *Deps) {
			d.Now, d.Random = clock.Now, func() float64 { return 0 }
			forwardingTo(o.to("killed"), other.to("well"))(d)
		})
		const many = 20
		for n := range many {
			if code, body := w.post(hook{event: "issues", id: fmt.Sprintf("k%d", n), body: issue}); code != 200 {
				t.Fatalf("%d %s", code, body)
			}
			w.quiet(clock)
			clock.Advance(time.Hour / many)
		}
		w.quiet(clock)
		if got := len(other.all()); got != many {
			t.Errorf("the other receiver got %d meanwhile", got)
		}
		if _, page := w.get("/health"); !strings.Contains(page, "Something is wrong") || !strings.Contains(page, "20 wait and are tried again") {
			t.Errorf("the page of health says %s", page)
		}
		o.set(false)
		clock.Advance(mostPauseOutside)
		w.service.wake()
		for n := range many {
			id := fmt.Sprintf("k%d", n)
			if d := w.ends(id); d.GetState() != gatewayv1.Delivery_STATE_DECIDED {
				t.Errorf("%v", d)
			}
			if o.takes(id) != 1 || other.takes(id) != 1 {
				t.Errorf("%s was taken %d and %d times", id, o.takes(id), other.takes(id))
			}
		}
		if tries := len(o.all()); tries > 30*many {
			t.Errorf("it was asked %d times", tries)
		}
	})
}

func TestTriesAtAReceiverEndAndARedeliveryBeginsAnew(t *testing.T) {
	clock := kittest.NewClock(time.Unix(1_800_000_000, 0))
	o := newOutside(t, nil)
	o.set(true)
	db := open(t)
	change := func(receivers ...Receiver) func(*Deps) {
		return func(d *Deps) {
			d.Now, d.Random = clock.Now, func() float64 { return 0 }
			d.Outside = Outside{Receivers: receivers, TryFor: time.Hour}
		}
	}
	w := start(t, db, change(o.to("gone")))
	w.post(hook{event: "issues", id: "g1", body: issue})
	for range 25 {
		w.quiet(clock)
		clock.Advance(mostPauseOutside)
	}
	d := w.ends("g1")
	if f := d.GetForwards()[0]; d.GetState() != gatewayv1.Delivery_STATE_KEPT || f.GetDecision().GetReason() != eventv1.Reason_REASON_GAVE_UP || f.GetAttempts() < fewTries {
		t.Errorf("%v", d)
	}
	if strings.Contains(d.String(), "s3cret") {
		t.Errorf("the address is told: %v", d)
	}
	if _, page := w.get("/health"); !strings.Contains(page, "1 could not be forwarded") || strings.Contains(page, "It has not taken") {
		t.Errorf("the page of health says %s", page)
	}
	w.stop()

	// With a receiver more, both get it again.
	o.set(false)
	w = start(t, db, change(o.to("gone"), o.to("new")))
	if _, err := w.deliveries().RedeliverDelivery(admin(t.Context()), &gatewayv1.RedeliverDeliveryRequest{DeliveryId: "g1"}); err != nil {
		t.Fatal(err)
	}
	if got := told(w.ends("g1")); got != "gone: NOTED accepted: 200 OK\nnew: NOTED accepted: 200 OK" {
		t.Errorf("%s", got)
	}
	o.set(true)
	w.post(hook{event: "issues", id: "g2", body: issue})
	w.quiet(clock)
	w.stop()

	// One that is set no more is waited for, and then not.
	w = start(t, db, change(o.to("new")))
	for range 25 {
		if err := w.service.giveUpForsaken(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.quiet(clock)
		clock.Advance(mostPauseOutside)
	}
	if got := told(w.ends("g2")); !strings.HasPrefix(got, "gone: GAVE_UP gave up: no receiver of this name is set any more\nnew: GAVE_UP gave up after ") {
		t.Errorf("%s", got)
	}
}

func TestTwoGatewaysForwardOnce(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		if db.Dialect == sqldb.SQLite {
			return // one gateway only
		}
		o := newOutside(t, nil)
		one, other := start(t, db, forwardingTo(o.to("shared"))), start(t, open(), forwardingTo(o.to("shared")))
		for i := range 40 {
			w := []*world{one, other}[i%2]
			w.post(hook{event: "issues", id: fmt.Sprintf("s%d", i/2), body: issue})
		}
		for i := range 20 {
			id := fmt.Sprintf("s%d", i)
			one.ends(id)
			if o.takes(id) != 1 {
				t.Errorf("%s was taken %d times", id, o.takes(id))
			}
		}
	})
}
