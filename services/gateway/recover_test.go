package gateway

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// hooks plays config's view of GitHub: its deliveries, two a page, and its pull
// requests.
type hooks struct {
	configv1.UnimplementedHookDeliveryServiceServer
	configv1.UnimplementedPullRequestServiceServer
	configv1.UnimplementedRefServiceServer
	configv1.UnimplementedCommitServiceServer

	mu     sync.Mutex
	list   []*configv1.HookDelivery // the newest first
	pulls  []*configv1.ListChangedPullRequestsResponse
	refs   []*configv1.ListPushedRefsResponse
	tags   string           // that the file names
	closed map[int32][]byte // the payloads of pull requests that are closed
	named  []int32          // the pull requests that were asked about
	asked  []int64
	since  []time.Time // of each sweep
	frugal bool        // the last one
	blind  bool        // sweeps fail
	down   bool
}

// attempt adds one that failed, so long ago.
func (h *hooks) attempt(guid string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append([]*configv1.HookDelivery{{
		Id: int64(len(h.list) + 1), DeliveryId: guid, Event: "push", Status: "timed out", DeliverTime: timestamppb.New(at),
	}}, h.list...)
}

func (h *hooks) ListHookDeliveries(_ context.Context, req *configv1.ListHookDeliveriesRequest) (*configv1.ListHookDeliveriesResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return nil, fault.New(fault.Unavailable, "GitHub is down")
	}
	from := 0
	fmt.Sscanf(req.GetPageToken(), "%d", &from)
	to := min(from+2, len(h.list))
	resp := &configv1.ListHookDeliveriesResponse{Deliveries: h.list[from:to]}
	if to < len(h.list) {
		resp.NextPageToken = strconv.Itoa(to)
	}
	return resp, nil
}

func (h *hooks) RedeliverHookDelivery(_ context.Context, req *configv1.RedeliverHookDeliveryRequest) (*configv1.RedeliverHookDeliveryResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, req.GetId())
	return &configv1.RedeliverHookDeliveryResponse{}, nil
}

func (h *hooks) ListChangedPullRequests(req *configv1.ListChangedPullRequestsRequest, out grpc.ServerStreamingServer[configv1.ListChangedPullRequestsResponse]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since, h.frugal = append(h.since, req.GetSince().AsTime()), req.GetFrugal()
	if h.blind {
		return fault.New(fault.Unavailable, "GitHub has trouble")
	}
	for _, pull := range h.pulls {
		if err := out.Send(pull); err != nil {
			return err
		}
	}
	return nil
}

func (h *hooks) took() (asked []int64, sweeps int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(asked, h.asked...), len(h.since)
}

// looked waits until a gateway has looked after what it missed.
func (w *world) looked(since time.Time) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() error {
		var mark watermark
		if err := w.service.store.recall(w.t.Context(), watermarkNote, &mark); err != nil {
			return err
		}
		if !mark.Known.After(since) {
			return fmt.Errorf("known until %s", mark.Known)
		}
		return nil
	})
}

func (w *world) recover() *gatewayv1.RecoverDeliveriesResponse {
	w.t.Helper()
	found, err := w.deliveries().RecoverDeliveries(admin(w.t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func TestMissedDeliveriesAreAskedForUntilTheyAreHere(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		begin := time.Now().Add(-time.Hour)
		db := open()
		s := &store{db: db}
		if err := s.note(t.Context(), watermarkNote, watermark{begin, time.Now()}); err != nil {
			t.Fatal(err)
		}
		known := &arrival{delivery: delivery{guid: "here", event: "push", received: begin}, payload: packed(star)}
		if err := s.insert(t.Context(), []*arrival{known}); err != nil {
			t.Fatal(err)
		}
		github := &hooks{}
		github.attempt("too old", begin.Add(-time.Hour))
		github.attempt("here", begin.Add(time.Minute))
		github.attempt("lost", begin.Add(2*time.Minute))
		for range mostAttempts {
			github.attempt("refused", begin.Add(3*time.Minute))
		}
		w := start(t, db, nil, github)
		w.looked(begin)
		if asked, sweeps := github.took(); fmt.Sprint(asked) != "[3]" || sweeps != 0 {
			t.Errorf("at start: asked for %v, %d sweeps", asked, sweeps)
		}
		// GitHub's second try does not arrive either: the mark waits for it.
		found := w.recover()
		if len(found.GetRedelivered()) != 1 || found.GetRedelivered()[0].GetDeliveryId() != "lost" || found.GetListed() != 3 ||
			len(found.GetGivenUp()) != 1 || found.GetGivenUp()[0].GetStatus() != "timed out" {
			t.Errorf("second look: %v", found)
		}
		w.post(hook{event: "push", id: "lost", body: star})
		if found := w.recover(); len(found.GetRedelivered()) != 0 {
			t.Errorf("after it arrived: %v", found)
		}
	})
}

func TestWhatGitHubForgotIsSwept(t *testing.T) {
	begin := time.Now().Add(-time.Hour)
	db := open(t)
	if err := (&store{db: db}).note(t.Context(), watermarkNote, watermark{Known: begin}); err != nil {
		t.Fatal(err)
	}
	github := &hooks{pulls: []*configv1.ListChangedPullRequestsResponse{
		{RepositoryId: 11, Number: 5, Sha: "a1", Payload: pullRequestPayload()},
	}}
	w := start(t, db, nil, github)
	w.looked(begin)
	if got := told(w.ends("swept-11-5-a1")); got != "scheduler: NOTED noted by scheduler" {
		t.Errorf("decided %q", got)
	}
	if since := github.since[0]; !since.Equal(begin) {
		t.Errorf("swept since %s, want %s", since, begin)
	}
	if found := w.recover(); len(found.GetSweptDeliveryIds()) != 0 {
		t.Errorf("the same again: %v", found)
	}
	if got := w.rooms.received("scheduler"); len(got) != 1 || got[0].GetPullRequest().GetPullRequest().GetNumber() != 5 {
		t.Errorf("the scheduler got %v", got)
	}
}

// While Forge is up, webhooks that are lost without a record are looked for once
// an hour, and what a delivery has told is left out.
func TestRoutineSweepFindsWhatNoDeliveryTold(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db, begin := open(), time.Now().UTC().Add(-time.Minute)
		before := start(t, db, nil)
		told := strings.Replace(string(pullRequestPayload()), "synchronize", "opened", 1)
		before.post(hook{event: "pull_request", id: "told", body: []byte(told)})
		before.ends("told")
		before.post(hook{event: "pull_request", id: "labeled", body: []byte(strings.NewReplacer("opened", "labeled", "a1", "b2").Replace(told))})
		before.ends("labeled")
		before.stop()
		swept := begin.Add(-2 * time.Hour)
		if err := (&store{db: db}).note(t.Context(), watermarkNote, watermark{begin, swept}); err != nil {
			t.Fatal(err)
		}
		github := &hooks{pulls: []*configv1.ListChangedPullRequestsResponse{
			{RepositoryId: 11, Number: 5, Sha: "a1", Payload: pullRequestPayload()},
			{RepositoryId: 11, Number: 5, Sha: "b2", Payload: bytes.ReplaceAll(pullRequestPayload(), []byte("a1"), []byte("b2"))},
		}}
		github.attempt("older", begin.Add(-time.Hour)) // the list of deliveries reaches back
		w := start(t, db, nil, github)
		w.looked(begin)
		w.ends("swept-11-5-b2")
		if w.count() != 3 {
			t.Errorf("%d deliveries", w.count())
		}
		if _, err := w.service.recovery.catchUp(t.Context(), routine, time.Time{}); err != nil {
			t.Fatal(err)
		}
		github.mu.Lock()
		defer github.mu.Unlock()
		if len(github.since) != 1 || !github.frugal || github.since[0].Sub(swept.Add(-overlap)).Abs() > time.Millisecond {
			t.Errorf("swept since %v, frugal %v", github.since, github.frugal)
		}
	})
}

// A routine sweep that fails keeps nobody from looking for deliveries, and is due
// until it succeeds.
func TestRoutineSweepThatFailsIsMadeAgain(t *testing.T) {
	db, begin := open(t), time.Now().UTC().Add(-2*time.Hour)
	if err := (&store{db: db}).note(t.Context(), watermarkNote, watermark{Known: begin}); err != nil {
		t.Fatal(err)
	}
	github := &hooks{blind: true}
	github.attempt("older", begin.Add(-time.Hour))
	w := start(t, db, nil, github)
	w.looked(begin)
	github.mu.Lock()
	github.blind = false
	github.mu.Unlock()
	for range 2 {
		if _, err := w.service.recovery.catchUp(t.Context(), routine, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, sweeps := github.took(); sweeps != 2 {
		t.Errorf("%d sweeps, the first of which failed", sweeps)
	}
}

func TestWhenALookSweeps(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	mark := watermark{ago(3 * time.Minute), ago(10 * time.Minute)}
	for name, c := range map[string]struct {
		mark   watermark
		why    occasion
		cutOff bool
		since  time.Time
		how    sweepKind
		from   time.Time
	}{
		"a first start":              {watermark{now, now}, atStart, true, time.Time{}, neverSweep, time.Time{}},
		"by hand at a first start":   {watermark{now, now}, byHand, true, time.Time{}, wholeSweep, now},
		"a start after a moment":     {mark, atStart, false, time.Time{}, neverSweep, time.Time{}},
		"a start, GitHub forgot":     {mark, atStart, true, time.Time{}, wholeSweep, mark.Known},
		"a start after a night":      {watermark{ago(9 * time.Hour), ago(9 * time.Hour)}, atStart, false, time.Time{}, routineSweep, ago(9*time.Hour + overlap)},
		"soon after a sweep":         {mark, routine, false, time.Time{}, neverSweep, time.Time{}},
		"little was sent":            {mark, routine, true, time.Time{}, neverSweep, time.Time{}},
		"an hour after a sweep":      {watermark{mark.Known, ago(time.Hour)}, routine, true, time.Time{}, routineSweep, ago(time.Hour + overlap)},
		"by hand":                    {mark, byHand, false, time.Time{}, wholeSweep, mark.Known},
		"by hand, of a certain time": {mark, byHand, false, ago(72 * time.Hour), wholeSweep, ago(72 * time.Hour)},
	} {
		if how, from := c.mark.dueSweep(now, c.why, c.cutOff, c.since); how != c.how || !from.Equal(c.from) {
			t.Errorf("%s: %v since %v, want %v since %v", name, how, from, c.how, c.from)
		}
	}
}

func TestFirstStartRecoversNothing(t *testing.T) {
	github := &hooks{}
	github.attempt("from before", time.Now().Add(-time.Minute))
	w := start(t, open(t), nil, github)
	w.looked(time.Time{})
	if asked, sweeps := github.took(); len(asked) != 0 || sweeps != 0 {
		t.Errorf("asked for %v, %d sweeps", asked, sweeps)
	}
}

func TestMarkStaysWhileGitHubCannotBeAsked(t *testing.T) {
	begin := time.Now().Add(-time.Hour).UTC()
	db := open(t)
	if err := (&store{db: db}).note(t.Context(), watermarkNote, watermark{Known: begin}); err != nil {
		t.Fatal(err)
	}
	w := start(t, db, nil, &hooks{down: true})
	_, err := w.deliveries().RecoverDeliveries(admin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "GitHub is down") {
		t.Errorf("%v", err)
	}
	var mark watermark
	if err := w.service.store.recall(t.Context(), watermarkNote, &mark); err != nil || !mark.Known.Equal(begin) {
		t.Errorf("known until %s, %v", mark.Known, err)
	}
}

func TestKeptDeliveryIsRelayedAgainByHand(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		w := start(t, db, nil)
		w.post(hook{event: "pull_request", id: "r1", body: pullRequestPayload()})
		d, err := w.service.store.byGUID(t.Context(), w.ends("r1").GetId())
		if err != nil {
			t.Fatal(err)
		}
		again := func() error {
			_, err := w.deliveries().RedeliverDelivery(admin(t.Context()), &gatewayv1.RedeliverDeliveryRequest{DeliveryId: "r1"})
			return err
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
		w.ends("r1")
		kittest.Eventually(t, patience, func() error {
			if n := len(w.rooms.received("scheduler")); n != 2 {
				return fmt.Errorf("the scheduler got it %d times", n)
			}
			return nil
		})
		w.ends("r1")
		// Retention: first the payload goes, then the row; what is pending stays.
		if n, err := w.service.store.prune(t.Context(), "payloads", d.received, 10); n != 0 || err != nil {
			t.Errorf("pruned %d, %v: it is not older than itself", n, err)
		}
		later := &arrival{delivery: delivery{guid: "r0", event: "push", received: time.Now()}, payload: packed(star)}
		w.rooms.answers("scheduler", nil)
		if err := w.service.store.insert(t.Context(), []*arrival{later}); err != nil {
			t.Fatal(err)
		}
		tomorrow := time.Now().Add(24 * time.Hour)
		if n, err := w.service.store.prune(t.Context(), "payloads", d.received.Add(time.Microsecond), 10); n != 1 || err != nil {
			t.Errorf("pruned %d, %v", n, err)
		}
		if err := again(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "payload was pruned") {
			t.Errorf("without its payload: %v", err)
		}
		w.ends("r0")
		if n, err := w.service.store.prune(t.Context(), "deliveries", tomorrow, 10); n != 2 || err != nil {
			t.Errorf("pruned %d, %v", n, err)
		}
		if w.count() != 0 {
			t.Error("rows are left")
		}
	})
}
