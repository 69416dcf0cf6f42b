package scheduler

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/bulletin"
)

// heard is an event as an address got it.
type heard struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	Data        struct {
		ID    string `json:"id"`
		Title string `json:"title"`
	} `json:"data"`
}

// listener is an address outside.
type listener struct {
	*httptest.Server
	mu     sync.Mutex
	answer int
	tries  int
	got    []heard
	header http.Header
}

func listens(t *testing.T) *listener {
	t.Helper()
	l := &listener{answer: http.StatusOK}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tries++
		if l.answer == http.StatusOK {
			var e heard
			if err := json.Unmarshal(body, &e); err != nil {
				t.Errorf("%s: %v", body, err)
			}
			l.got, l.header = append(l.got, e), r.Header
		}
		http.Error(w, "well\x1b[1m\r\nX: y", l.answer)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) answers(code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = code
}

// asked is how often it was tried.
func (l *listener) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tries
}

// all is what it got, and with which header last.
func (l *listener) all() ([]heard, http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got), l.header
}

// of are the types of what an address got of a build, in order.
func (l *listener) of(build string) (types []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.got {
		if e.Data.ID == build {
			types = append(types, strings.TrimPrefix(e.Type, "dev.forge."))
		}
	}
	return types
}

// hears waits until an address got so much of a build.
func (l *listener) hears(t *testing.T, build string, want ...string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		if got := l.of(build); !slices.Equal(got, want) {
			return fmt.Errorf("it got %v, want %v", got, want)
		}
		return nil
	})
}

func outTo(addresses map[string]string) bulletin.Webhooks {
	return bulletin.Webhooks{Addresses: addresses, Secret: "hush", TryFor: 72 * time.Hour}
}

// outgoing is what is listed of one.
func outgoing(r *rig) *schedulerv1.OutgoingWebhook {
	r.t.Helper()
	all, err := r.service.bulletin.ListOutgoingWebhooks(r.t.Context(), &schedulerv1.ListOutgoingWebhooksRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, w := range all.GetWebhooks() {
		if w.GetName() == "one" {
			return w
		}
	}
	r.t.Fatalf("%v", all)
	return nil
}

func eachTelling(t *testing.T, test func(t *testing.T, r *rig, log *kittest.Logbook, one, other *listener)) {
	t.Helper()
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		r, log, one, other := newRig(t, open), &kittest.Logbook{}, listens(t), listens(t)
		r.deps.Log = slog.New(slog.NewTextHandler(log, nil))
		r.deps.WebhooksOut = outTo(map[string]string{"one": one.URL + "/?token=s3cret", "other": other.URL})
		r.start()
		test(t, r, log, one, other)
		r.stop()
		if strings.Contains(log.String(), "s3cret") {
			t.Error("the log tells the address")
		}
	})
}

func TestAddressesAreToldOfBuildsAndDeploysInOrder(t *testing.T) {
	eachTelling(t, func(t *testing.T, r *rig, _ *kittest.Logbook, one, other *listener) {
		e := opened(1, "a1")
		e.GetPullRequest().GetPullRequest().Title = "Add\r\nX-Evil: <b>\x00"
		test := r.built(e)
		r.pass(test)
		deploy := r.built(mergedInto(1, "main", "m1"))
		r.pass(deploy)
		for _, l := range []*listener{one, other} {
			l.hears(t, test, "build.queued", "build.started", "build.finished")
			l.hears(t, deploy, "deploy.queued", "deploy.started", "deploy.finished")
		}
		got, h := one.all()
		first := got[slices.IndexFunc(got, func(e heard) bool { return e.Data.ID == test })] // of two builds there is no order
		if first.SpecVersion != "1.0" || first.Source != "https://forge.example/" || first.Subject != "Acme/shop/"+test || first.Data.Title != e.GetPullRequest().GetPullRequest().GetTitle() {
			t.Errorf("%+v", first)
		}
		if h.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" || h.Get("X-Evil") != "" || !strings.HasPrefix(h.Get("Webhook-Signature"), "v1,") {
			t.Errorf("%v", h)
		}
		ids := map[string]bool{}
		for _, e := range got {
			ids[e.ID] = true
		}
		if len(ids) != 6 {
			t.Errorf("ids %v", ids)
		}
		kittest.Eventually(t, patience, func() error {
			if w := outgoing(r); w.GetSent() != 6 || w.GetWaiting() != 0 || w.GetHost() != one.URL || w.GetSendTime() == nil {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
	})
}

// settles waits until nothing is on its way, nor about to be: other has taken all, and one,
// which is away, is left alone for a while. The lease of a request would be over where the
// clock jumps while that is made, and it would be made twice.
func settles(r *rig) {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		var waiting, leased, rests int
		now := r.clock.Now()
		err := r.deps.DB.Read().QueryRowContext(r.t.Context(), `SELECT (SELECT COUNT(*) FROM notices WHERE address = 'other'),
			(SELECT COUNT(*) FROM notices WHERE address = 'one' AND due_time = $1), (SELECT COUNT(*) FROM notice_addresses WHERE name = 'one' AND due_time > $2)`,
			sqldb.Micros(now.Add(due.Lease)), sqldb.Micros(now)).Scan(&waiting, &leased, &rests)
		if err == nil && (waiting > 0 || leased > 0 || rests == 0) {
			err = fmt.Errorf("%d events wait for other, %d are on their way to one, %d addresses rest", waiting, leased, rests)
		}
		return err
	})
}

func TestAnAddressThatIsAwayForADayGetsAllInOrder(t *testing.T) {
	eachTelling(t, func(t *testing.T, r *rig, log *kittest.Logbook, one, other *listener) {
		one.answers(http.StatusServiceUnavailable)
		var all []string
		for n := range int32(4) {
			id := r.built(opened(n+1, fmt.Sprintf("a%d", n)))
			r.pass(id)
			other.hears(t, id, "build.queued", "build.started", "build.finished")
			all = append(all, id)
			settles(r)
			r.clock.Advance(6 * time.Hour)
		}
		r.stop() // and what waits is known again
		r.start()
		kittest.Eventually(t, patience, func() error {
			r.service.bulletin.Wake()
			if w := outgoing(r); w.GetWaiting() != 12 || w.GetError() != "it answered 503 Service Unavailable: well [1m" {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
		if n := one.asked(); n > 4*12 {
			t.Errorf("%d tries", n)
		}
		settles(r)
		one.answers(http.StatusOK)
		r.clock.Advance(5 * time.Minute)
		r.service.bulletin.Wake()
		for _, id := range all {
			one.hears(t, id, "build.queued", "build.started", "build.finished")
		}

		kittest.Eventually(t, patience, func() error {
			if w := outgoing(r); w.GetSent() != 12 || w.GetWaiting() != 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})

		// What is too old is not told, and that is said.
		one.answers(http.StatusServiceUnavailable)
		old := r.built(opened(9, "b1"))
		other.hears(t, old, "build.queued")
		settles(r)
		r.clock.Advance(73 * time.Hour)
		if err := r.service.bulletin.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w := outgoing(r); w.GetDropped() != 1 || w.GetWaiting() != 0 || w.GetSent() != 12 {
			t.Errorf("%v", w)
		}
		if text := log.String(); !strings.Contains(text, "events were dropped that an address did not take in time") || !strings.Contains(text, "webhook=one") {
			t.Errorf("the log says %s", text)
		}
	})
}

func TestAnEventThatAnAddressRefusesIsNotSentAgain(t *testing.T) {
	eachTelling(t, func(t *testing.T, r *rig, _ *kittest.Logbook, one, other *listener) {
		one.answers(http.StatusUnprocessableEntity)
		id := r.built(opened(1, "a1"))
		r.pass(id)
		other.hears(t, id, "build.queued", "build.started", "build.finished")
		kittest.Eventually(t, patience, func() error {
			if w := outgoing(r); w.GetRefused() != 3 || w.GetWaiting() != 0 || w.GetSent() != 0 {
				return fmt.Errorf("%v", w)
			}
			return nil
		})
		if n := one.asked(); n != 3 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestAddressesThatAreNoneStopTheStart(t *testing.T) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		r := newRig(t, open)
		r.deps.DB = open()
		defer r.deps.DB.Close()
		for want, out := range map[string]bulletin.Webhooks{
			"FORGE_WEBHOOKS_OUT_SECRET is missing":  {Addresses: map[string]string{"a": "https://x"}},
			"expected up to 40 lower-case letters":  outTo(map[string]string{"A b": "https://x"}),
			"a is no address that begins with http": outTo(map[string]string{"a": "ftp://s3cret@x"}),
		} {
			r.deps.WebhooksOut = out
			if _, err := New(r.deps); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, want)
			}
		}
	})
}
