package gateway

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	recoverEvery      = 3 * time.Minute
	recoverRetryFirst = time.Second
	// GitHub's clock and ours differ, and a delivery is listed when its attempt
	// has ended: a recovery reaches back this much further than all was known.
	overlap = 10 * time.Minute
	// What was refused as often as this is refused again: it is for a person.
	mostAttempts = 5
	recoverFor   = 10 * time.Minute
)

// watermark is the moment up to which all that GitHub sent is known to be here,
// and when pull requests were last swept.
type watermark struct {
	Known time.Time `json:"known"`
	Swept time.Time `json:"swept"`
}

const watermarkNote = "recovery"

// recovery finds what GitHub sent while nobody listened.
type recovery struct {
	deps      Deps
	store     *store
	inbox     *inbox
	hooks     configv1.HookDeliveryServiceClient
	pulls     configv1.PullRequestServiceClient
	refs      configv1.RefServiceClient
	commits   configv1.CommitServiceClient
	previews  schedulerv1.PreviewServiceClient
	onlyOneIn chan struct{} // runs take turns
}

func newRecovery(deps Deps, store *store, inbox *inbox) *recovery {
	conn := deps.Receivers["config"]
	return &recovery{
		deps: deps, store: store, inbox: inbox,
		hooks: configv1.NewHookDeliveryServiceClient(conn), pulls: configv1.NewPullRequestServiceClient(conn),
		refs: configv1.NewRefServiceClient(conn), commits: configv1.NewCommitServiceClient(conn),
		previews:  schedulerv1.NewPreviewServiceClient(deps.Receivers["scheduler"]),
		onlyOneIn: make(chan struct{}, 1),
	}
}

// run catches up at start and every few minutes.
func (r *recovery) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for why, failed := atStart, 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		pause := recoverEvery
		found, err := r.catchUp(ctx, why, time.Time{})
		switch {
		case err == nil:
			why, failed = routine, 0
			r.logFound(ctx, found)
		case ctx.Err() == nil:
			failed++
			pause = due.Backoff(failed, recoverRetryFirst, recoverEvery, r.deps.Random)
			r.deps.Log.InfoContext(ctx, "recovery of missed deliveries failed; it is tried again", "retry_in", pause, "error", err)
		}
		timer.Reset(pause)
	}
}

func (r *recovery) logFound(ctx context.Context, found *gatewayv1.RecoverDeliveriesResponse) {
	if len(found.GetRedelivered())+len(found.GetGivenUp())+len(found.GetSweptDeliveryIds()) == 0 {
		return
	}
	r.deps.Log.InfoContext(ctx, "missed deliveries recovered", "since", found.GetSince().AsTime(),
		"redelivered", len(found.GetRedelivered()), "given_up", len(found.GetGivenUp()), "swept", len(found.GetSweptDeliveryIds()))
}

// occasion is why missed deliveries are looked for.
type occasion int

const (
	routine occasion = iota
	atStart
	byHand
)

// catchUp finds what is missing since the watermark and moves that. The first run
// ever only sets it. By hand it sweeps in any case, since the given moment if
// there is one.
func (r *recovery) catchUp(ctx context.Context, why occasion, since time.Time) (*gatewayv1.RecoverDeliveriesResponse, error) {
	select {
	case r.onlyOneIn <- struct{}{}:
		defer func() { <-r.onlyOneIn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, recoverFor)
	defer cancel()
	var (
		mark  watermark
		begin = r.deps.Now()
	)
	if err := r.store.recall(ctx, watermarkNote, &mark); err != nil {
		return nil, err
	}
	reach := mark.Known.Add(-overlap)
	if mark.Known.IsZero() {
		mark, reach = watermark{begin, begin}, begin
	}
	if mark.Swept.IsZero() { // noted by a Forge that swept at its start alone
		mark.Swept = mark.Known
	}
	found := &gatewayv1.RecoverDeliveriesResponse{Since: timestamppb.New(mark.Known)}
	missing, cutOff, err := r.missing(ctx, reach, found)
	if err != nil {
		return nil, err
	}
	next := watermark{begin, mark.Swept}
	for _, m := range missing {
		if m.attempts >= mostAttempts {
			found.GivenUp = append(found.GivenUp, m.asProto())
			continue
		}
		// It stays missing until it has arrived.
		if at := m.GetDeliverTime().AsTime(); at.Before(next.Known) {
			next.Known = at
		}
		_, err := r.hooks.RedeliverHookDelivery(ctx, &configv1.RedeliverHookDeliveryRequest{Id: m.GetId()})
		if err != nil && !fault.Is(err, fault.NotFound) { // NotFound: forgotten meanwhile, for the sweep to find
			return nil, fmt.Errorf("ask GitHub for delivery %s: %w", m.GetDeliveryId(), err)
		}
		found.Redelivered = append(found.Redelivered, m.asProto())
	}
	if kind, from := mark.dueSweep(begin, why, cutOff, since); kind != neverSweep {
		found.SweptDeliveryIds, err = r.sweepAll(ctx, kind, from)
		switch {
		case err == nil:
			next.Swept = begin
		case kind == routineSweep:
			r.deps.Log.WarnContext(ctx, "sweep of GitHub failed; the next recovery tries it again", "error", err)
		default:
			return nil, err
		}
	}
	// What is missing lies within the next run only as long as the mark does not
	// run ahead of it.
	return found, r.store.note(ctx, watermarkNote, next)
}

// dueSweep decides whether a recovery at now sweeps, and since when. cutOff: GitHub's
// list of deliveries does not reach back to when all was known, which while Forge
// is up says only that little was sent.
func (w watermark) dueSweep(now time.Time, why occasion, cutOff bool, since time.Time) (sweepKind, time.Time) {
	switch {
	case why == byHand && !since.IsZero():
		return wholeSweep, since
	case why == byHand, why == atStart && cutOff && w.Known.Before(now):
		return wholeSweep, w.Known
	case now.Sub(w.Swept) >= sweepEvery:
		return routineSweep, w.Swept.Add(-overlap)
	default:
		return neverSweep, time.Time{}
	}
}

// missed is a delivery's last attempt, and how many there were.
type missed struct {
	*configv1.HookDelivery
	attempts int
}

func (m *missed) asProto() *gatewayv1.RecoveredDelivery {
	return &gatewayv1.RecoveredDelivery{
		DeliveryId: m.GetDeliveryId(), Event: m.GetEvent(), Action: m.GetAction(), Status: m.GetStatus(), DeliverTime: m.GetDeliverTime(),
	}
}

// missing reads GitHub's list back to since and returns what is not in the
// inbox, the oldest first. cutOff: the list ends before it gets there.
func (r *recovery) missing(ctx context.Context, since time.Time, found *gatewayv1.RecoverDeliveriesResponse) (lost []*missed, cutOff bool, err error) {
	listed := map[string]*missed{}
	cutOff = true
	for token := ""; ; {
		page, err := r.hooks.ListHookDeliveries(ctx, &configv1.ListHookDeliveriesRequest{PageToken: token})
		if err != nil {
			return nil, false, fmt.Errorf("ask GitHub for its deliveries: %w", err)
		}
		for _, one := range page.GetDeliveries() {
			if one.GetDeliverTime().AsTime().Before(since) {
				cutOff = false
				break
			}
			if listed[one.GetDeliveryId()] == nil {
				listed[one.GetDeliveryId()] = &missed{HookDelivery: one}
			}
			listed[one.GetDeliveryId()].attempts++
		}
		if token = page.GetNextPageToken(); token == "" || !cutOff {
			break
		}
	}
	found.Listed = int32(len(listed)) //nolint:gosec // of three days
	var guids []string
	for guid := range listed {
		guids = append(guids, guid)
	}
	for some := range slices.Chunk(guids, 500) {
		here, err := r.store.known(ctx, some)
		if err != nil {
			return nil, false, err
		}
		for _, guid := range here {
			delete(listed, guid)
		}
	}
	for _, m := range listed {
		lost = append(lost, m)
	}
	slices.SortFunc(lost, func(a, b *missed) int {
		return a.GetDeliverTime().AsTime().Compare(b.GetDeliverTime().AsTime())
	})
	return lost, cutOff, nil
}
