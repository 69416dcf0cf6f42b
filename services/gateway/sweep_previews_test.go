package gateway

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func (h *hooks) ListClosedPullRequests(req *configv1.ListClosedPullRequestsRequest, out grpc.ServerStreamingServer[configv1.ListClosedPullRequestsResponse]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.named, h.frugal = nil, req.GetFrugal()
	for _, one := range req.GetPullRequests() {
		h.named = append(h.named, one.GetNumber())
		if payload := h.closed[one.GetNumber()]; payload != nil {
			if err := out.Send(&configv1.ListClosedPullRequestsResponse{Payload: payload}); err != nil {
				return err
			}
		}
	}
	return nil
}

// previews plays the scheduler's PreviewService, with pages of two.
type previews struct {
	schedulerv1.UnimplementedPreviewServiceServer
	mu   sync.Mutex
	all  []*eventv1.PullRequestName
	away bool
}

func previewsAccess() map[string]rpc.Access {
	return map[string]rpc.Access{
		schedulerv1.PreviewService_ListPreviewedPullRequests_FullMethodName: {Rooms: []string{"gateway"}},
		configv1.PullRequestService_ListClosedPullRequests_FullMethodName:   {Rooms: []string{"gateway"}},
	}
}

func (p *previews) ListPreviewedPullRequests(_ context.Context, req *schedulerv1.ListPreviewedPullRequestsRequest) (*schedulerv1.ListPreviewedPullRequestsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, fault.New(fault.Unavailable, "the scheduler is away")
	}
	from := 0
	fmt.Sscanf(req.GetPageToken(), "%d", &from)
	to := min(from+2, len(p.all))
	answer := &schedulerv1.ListPreviewedPullRequestsResponse{PullRequests: p.all[from:to]}
	if to < len(p.all) {
		answer.NextPageToken = strconv.Itoa(to)
	}
	return answer, nil
}

// have says which pull requests have previews.
func (p *previews) have(numbers ...int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = nil
	for _, n := range numbers {
		p.all = append(p.all, &eventv1.PullRequestName{Repository: &eventv1.Repository{Id: 11, Owner: "acme", Name: "web"}, InstallationId: 7, Number: n})
	}
}

// closedPayload is #5 as its webhook tells that it was closed without a merge; merged is
// the merge commit, if there was one.
func closedPayload(at, merged string) []byte {
	more := fmt.Sprintf(`"state":"closed","closed_at":"2026-01-02T%sZ",`, at)
	if merged != "" {
		more += fmt.Sprintf(`"merged":true,"merge_commit_sha":%q,`, merged)
	}
	return []byte(strings.NewReplacer(`"action":"synchronize"`, `"action":"closed"`, `"state":"open",`, more, "2026-01-02T03:04:06Z", "2026-01-02T"+at+"Z").
		Replace(string(pullRequestPayload())))
}

func TestPreviewsOfClosedPullRequestsAreFoundOnce(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		github := &hooks{closed: map[int32][]byte{}}
		w := start(t, open(), func(d *Deps) { d.Random = func() float64 { return 0.5 } }, github)
		look := func(closed []byte) []string {
			t.Helper()
			github.mu.Lock()
			github.closed[5] = closed
			github.mu.Unlock()
			swept, err := w.service.recovery.sweepPreviews(t.Context(), routineSweep)
			if err != nil {
				t.Fatal(err)
			}
			return swept
		}
		kittest.Want(t, len(look(closedPayload("04:00:00", ""))), 0, "without a preview")
		w.rooms.previews.have(3, 4, 5, 6)
		kittest.Want(t, len(look(nil)), 0, "all are open")
		if !slices.Equal(github.named, []int32{5, 6, 3, 4}) || !github.frugal {
			t.Errorf("asked about %v, frugal %v", github.named, github.frugal)
		}

		first := fmt.Sprintf("swept-11-5-closed-%d", time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC).Unix())
		kittest.Want(t, look(closedPayload("04:00:00", "")), []string{first})
		kittest.Want(t, len(look(closedPayload("04:00:00", ""))), 0, "the same once more")
		w.ends(first)
		w.post(hook{event: "pull_request", id: "late", body: closedPayload("04:00:00", "")})
		w.ends("late")
		for _, event := range w.rooms.received("scheduler") {
			pull := event.GetPullRequest().GetPullRequest()
			if event.GetAction() != "closed" || pull.GetNumber() != 5 || pull.GetOpen() || pull.GetMerged() || event.GetInstallationId() != 7 || event.GetRepository().GetId() != 11 {
				t.Errorf("relayed %v", event)
			}
		}
		kittest.Want(t, len(w.rooms.received("scheduler")), 2, "what was swept, and the webhook that came late")

		// Opened again, it can be closed again.
		kittest.Want(t, len(look(closedPayload("05:00:00", ""))), 1, "closed once more")
		w.post(hook{event: "pull_request", id: "told", body: closedPayload("06:00:00", "")})
		w.ends("told")
		kittest.Want(t, len(look(closedPayload("06:00:00", ""))), 0, "what a delivery told of")

		kittest.Want(t, look(closedPayload("07:00:00", "m1")), []string{"swept-11-5-m1"})
		if _, isNew, err := w.service.recovery.isNew(t.Context(), pullState(11, 5, "m1")); isNew || err != nil {
			t.Errorf("a look at changed pull requests finds the merge again: %v, %v", isNew, err)
		}
	})
}

// Two gateways may look at once.
func TestTwoGatewaysSweepAPreviewOnce(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db, github := open(), &hooks{closed: map[int32][]byte{5: closedPayload("04:00:00", "")}}
		one, two := start(t, db, nil, github), start(t, db, nil, github)
		errs := make(chan error, 2)
		for _, w := range []*world{one, two} {
			w.rooms.previews.have(5)
			go func() {
				_, err := w.service.recovery.sweepPreviews(t.Context(), wholeSweep)
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		kittest.Want(t, one.count(), 1, "deliveries")
	})
}

// A look that cannot be made is made again, and whoever asked for it is told.
func TestPreviewsAreSweptAgainWhereTheSchedulerIsAway(t *testing.T) {
	github := &hooks{closed: map[int32][]byte{5: closedPayload("04:00:00", "")}}
	w := start(t, open(t), nil, github)
	w.looked(time.Time{})
	w.rooms.previews.have(5)
	w.rooms.previews.goAway(true)
	if _, err := w.deliveries().RecoverDeliveries(admin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	w.rooms.previews.goAway(false)
	kittest.Want(t, len(w.recover().GetSweptDeliveryIds()), 1, "once it is back")
}

func (p *previews) goAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}
