package gateway

import (
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

	mu    sync.Mutex
	list  []*configv1.HookDelivery // the newest first
	pulls []*configv1.ListChangedPullRequestsResponse
	asked []int64
	since []time.Time // of each sweep
	down  bool
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
	h.since = append(h.since, req.GetSince().AsTime())
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
	kittest.Eventually(w.t, 10*time.Second, func() error {
		var mark watermark
		if err := w.gate.store.recall(w.t.Context(), watermarkNote, &mark); err != nil {
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
		s := &store{db}
		if err := s.note(t.Context(), watermarkNote, watermark{begin}); err != nil {
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
	if err := (&store{db}).note(t.Context(), watermarkNote, watermark{begin}); err != nil {
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
	if err := (&store{db}).note(t.Context(), watermarkNote, watermark{begin}); err != nil {
		t.Fatal(err)
	}
	w := start(t, db, nil, &hooks{down: true})
	_, err := w.deliveries().RecoverDeliveries(admin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "GitHub is down") {
		t.Errorf("%v", err)
	}
	var mark watermark
	if err := w.gate.store.recall(t.Context(), watermarkNote, &mark); err != nil || !mark.Known.Equal(begin) {
		t.Errorf("known until %s, %v", mark.Known, err)
	}
}

func TestKeptDeliveryIsRelayedAgainByHand(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		w := start(t, db, nil)
		w.post(hook{event: "pull_request", id: "r1", body: pullRequestPayload()})
		d, err := w.gate.store.byGUID(t.Context(), w.ends("r1").GetId())
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
		kittest.Eventually(t, 10*time.Second, func() error {
			if n := len(w.rooms.received("scheduler")); n != 2 {
				return fmt.Errorf("the scheduler got it %d times", n)
			}
			return nil
		})
		w.ends("r1")
		// Retention: first the payload goes, then the row; what is pending stays.
		if n, err := w.gate.store.prune(t.Context(), "payloads", d.received, 10); n != 0 || err != nil {
			t.Errorf("pruned %d, %v: it is not older than itself", n, err)
		}
		later := &arrival{delivery: delivery{guid: "r0", event: "push", received: time.Now()}, payload: packed(star)}
		w.rooms.answers("scheduler", nil)
		if err := w.gate.store.insert(t.Context(), []*arrival{later}); err != nil {
			t.Fatal(err)
		}
		tomorrow := time.Now().Add(24 * time.Hour)
		if n, err := w.gate.store.prune(t.Context(), "payloads", d.received.Add(time.Microsecond), 10); n != 1 || err != nil {
			t.Errorf("pruned %d, %v", n, err)
		}
		if err := again(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "payload was pruned") {
			t.Errorf("without its payload: %v", err)
		}
		w.ends("r0")
		if n, err := w.gate.store.prune(t.Context(), "deliveries", tomorrow, 10); n != 2 || err != nil {
			t.Errorf("pruned %d, %v", n, err)
		}
		if w.count() != 0 {
			t.Error("rows are left")
		}
	})
}
