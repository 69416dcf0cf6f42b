package gateway

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ListDeliveries lists deliveries, newest first.
func (s *Service) ListDeliveries(ctx context.Context, req *gatewayv1.ListDeliveriesRequest) (*gatewayv1.ListDeliveriesResponse, error) {
	if req.GetPullRequest() != 0 && req.GetRepository() == "" {
		return nil, fault.New(fault.Invalid, "pull_request needs the repository, as owner/name")
	}
	var before int64
	if err := rpc.ParsePageToken(req.GetPageToken(), &before); err != nil {
		return nil, err
	}
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	from, err := micros("receive_time_from", req.GetReceiveTimeFrom())
	if err != nil {
		return nil, err
	}
	until, err := micros("receive_time_before", req.GetReceiveTimeBefore())
	if err != nil {
		return nil, err
	}
	// One more than asked for tells whether there is a next page.
	ids, err := s.store.list(ctx, deliveryFilter{
		before: before, event: req.GetEvent(), repository: req.GetRepository(), state: int64(req.GetState()),
		pullRequest: req.GetPullRequest(), sha: req.GetSha(), from: from, until: until, limit: size + 1,
	})
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListDeliveriesResponse{}
	ids, resp.NextPageToken = rpc.CutPage(ids, size, func(last int64) []any { return []any{last} })
	forwards, err := s.store.forwards(ctx, ids...)
	if err != nil {
		return nil, err
	}
	// What a payload tells is stored with the first decision, so it is read after the decisions, here and below.
	found, err := s.store.byIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		resp.Deliveries = append(resp.Deliveries, show(d, forwards[d.id]))
	}
	return resp, nil
}

// GetDelivery shows one delivery with its headers and payload.
func (s *Service) GetDelivery(ctx context.Context, req *gatewayv1.GetDeliveryRequest) (*gatewayv1.GetDeliveryResponse, error) {
	d, err := s.store.byGUID(ctx, req.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	forwards, err := s.store.forwards(ctx, d.id)
	if err != nil {
		return nil, err
	}
	if d, err = s.store.byID(ctx, d.id); err != nil {
		return nil, err
	}
	shown := show(d, forwards[d.id])
	shown.Headers = d.headers
	if shown.Payload, err = s.store.payload(ctx, d.id); err != nil {
		return nil, err
	}
	return &gatewayv1.GetDeliveryResponse{Delivery: shown}, nil
}

// RedeliverDelivery has every receiver decide again.
func (s *Service) RedeliverDelivery(ctx context.Context, req *gatewayv1.RedeliverDeliveryRequest) (*gatewayv1.RedeliverDeliveryResponse, error) {
	d, err := s.store.byGUID(ctx, req.GetDeliveryId())
	if err != nil {
		return nil, err
	}
	entry := &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_REDELIVER, Repository: d.repository, Subject: d.guid}
	if err := s.store.reopen(ctx, d, s.deps.Now(), s.audit.Add(entry)); err != nil {
		return nil, err
	}
	s.audit.Wake()
	s.wake()
	forwards, err := s.store.forwards(ctx, d.id)
	if err != nil {
		return nil, err
	}
	if d, err = s.store.byID(ctx, d.id); err != nil {
		return nil, err
	}
	return &gatewayv1.RedeliverDeliveryResponse{Delivery: show(d, forwards[d.id])}, nil
}

// RecoverDeliveries looks for what GitHub could not deliver, and sweeps.
func (s *Service) RecoverDeliveries(ctx context.Context, req *gatewayv1.RecoverDeliveriesRequest) (*gatewayv1.RecoverDeliveriesResponse, error) {
	if _, err := micros("since", req.GetSince()); err != nil {
		return nil, err
	}
	var since time.Time
	if req.GetSince() != nil {
		since = req.GetSince().AsTime()
	}
	if err := s.audit.Write(ctx, &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_REDELIVER, Detail: "whatever GitHub could not deliver"}); err != nil {
		return nil, err
	}
	return s.recovery.catchUp(ctx, byHand, since)
}

func show(d delivery, forwards []forward) *gatewayv1.Delivery {
	shown := &gatewayv1.Delivery{
		Id: d.guid, Event: d.event, Action: d.action, Repository: d.repository, InstallationId: d.installationID,
		ReceiveTime: timestamppb.New(d.received), State: stateOf(forwards), TraceId: traceID(d.traceparent), PayloadSize: d.size,
		PullRequest: d.pullRequest, Sha: d.sha,
	}
	for _, f := range roomsFirst(forwards) {
		way := &gatewayv1.Forward{
			Receiver: f.receiver, Decision: f.decision, Attempts: int32(f.attempts), Error: f.err, //nolint:gosec // mostTries at most
			DecideTime: timeOrNil(f.decided),
		}
		if f.state == pending {
			way.NextTryTime = timeOrNil(f.due)
		}
		shown.Forwards = append(shown.Forwards, way)
	}
	return shown
}

// roomsFirst has what Forge itself decided stand before what was forwarded.
func roomsFirst(forwards []forward) []forward {
	rooms := receivers()
	return slices.SortedStableFunc(slices.Values(forwards), func(a, b forward) int {
		return cmp.Compare(outsideOf(rooms, a), outsideOf(rooms, b))
	})
}

func outsideOf(rooms []string, f forward) int {
	if slices.Contains(rooms, f.receiver) {
		return 0
	}
	return 1
}

// stateOf is pending as long as one forward is, else kept as soon as one is.
func stateOf(forwards []forward) gatewayv1.Delivery_State {
	state := decided
	for _, f := range forwards {
		if f.state == pending {
			return gatewayv1.Delivery_STATE_PENDING
		}
		state = max(state, f.state)
	}
	return gatewayv1.Delivery_State(state)
}

// traceID is the second part of a W3C traceparent.
func traceID(traceparent string) string {
	if parts := strings.Split(traceparent, "-"); len(parts) == 4 {
		return parts[1]
	}
	return ""
}

func timeOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func micros(field string, t *timestamppb.Timestamp) (int64, error) {
	if t == nil {
		return 0, nil
	}
	if err := t.CheckValid(); err != nil {
		return 0, fault.Newf(fault.Invalid, "%s is no moment: write it like 2026-11-23T18:00:00Z", field)
	}
	return sqldb.Micros(t.AsTime()), nil
}
