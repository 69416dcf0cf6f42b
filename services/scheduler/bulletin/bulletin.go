package bulletin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/egress"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	workers    = 4
	sendWithin = 30 * time.Second
	firstPause = time.Second
	mostPause  = 5 * time.Minute
	dropEvery  = time.Minute
	// mostWaiting is how many events one address may be behind.
	mostWaiting = 100_000
)

// Webhooks says whom to tell of builds and deploys.
type Webhooks struct {
	Addresses map[string]string // URLs by name; these may hold tokens
	Secret    string            // what events are signed with
	TryFor    time.Duration     // how long an event is tried at an address; 0: for ever
}

// Deps is what the bulletin needs.
type Deps struct {
	Store    *store.Store
	Webhooks Webhooks
	Chats    Chats
	Source   string // where Forge is: the source of its events
	Meter    metric.Meter
	Log      *slog.Logger
}

// Service tells others outside.
type Service struct {
	schedulerv1.UnimplementedOutgoingWebhookServiceServer
	Deps

	names    []string     // of webhooks' addresses, in order
	client   *http.Client // goes wherever the operator wants
	internet *http.Client
	loops    []*due.Loop[store.Notice]
}

var addressName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// New returns the bulletin; Run makes it tell what it noted.
func New(d Deps) (*Service, error) {
	s := &Service{Deps: d, names: slices.Sorted(maps.Keys(d.Webhooks.Addresses)), client: egress.Client(true), internet: egress.Client(false)} // whom the operator names may be a neighbour
	if len(s.names) > 0 && d.Webhooks.Secret == "" {
		return nil, errors.New("FORGE_WEBHOOKS_OUT_SECRET is missing: events are signed with it; forge secret new makes one")
	}
	for _, name := range s.names {
		if !addressName.MatchString(name) {
			return nil, fmt.Errorf("FORGE_WEBHOOKS_OUT: name %q: expected up to 40 lower-case letters, digits and hyphens, a letter first", name)
		}
		address, err := url.Parse(d.Webhooks.Addresses[name])
		if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
			return nil, fmt.Errorf("FORGE_WEBHOOKS_OUT: %s is no address that begins with https:// or http:// and names a host", name)
		}
		s.loops = append(s.loops, &due.Loop[store.Notice]{
			Name: "webhooks to " + name, Workers: workers, Log: d.Log,
			Claim: func(ctx context.Context, limit int) ([]store.Notice, error) {
				return store.Board{Store: d.Store}.Claim(ctx, name, limit)
			},
			Renew: store.Board{Store: d.Store}.Renew,
			Work:  s.send,
		})
	}
	s.loops = append(s.loops, &due.Loop[store.Notice]{
		Name: "chats", Workers: workers, Log: d.Log,
		Claim: func(ctx context.Context, limit int) ([]store.Notice, error) {
			return store.Board{Store: d.Store}.ClaimUnder(ctx, chats, limit)
		},
		Renew: store.Board{Store: d.Store}.Renew,
		Work:  s.say,
	})
	return s, s.observe(d.Meter)
}

// Note stores, for each address, that a build has come to its state, in the change by which
// it did.
func (s *Service) Note(ctx context.Context, t *store.Tx, b *store.Build) error {
	if err := s.tell(ctx, t, b); err != nil || len(s.names) == 0 {
		return err
	}
	id, body, err := eventOf(b, s.Source, t.Now)
	if err != nil || id == "" {
		return err
	}
	for _, name := range s.names {
		if err := (store.Notices{Tx: t}).Add(ctx, store.Notice{Address: name, BuildID: b.GetId(), EventID: id, Event: body}); err != nil {
			return err
		}
	}
	return nil
}

// Wake has what was noted be told at once.
func (s *Service) Wake() {
	for _, loop := range s.loops {
		loop.Wake()
	}
}

// Run tells until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.internet.CloseIdleConnections()
	defer s.client.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	for _, loop := range s.loops {
		group.Go(func() error { return loop.Run(ctx) })
	}
	group.Go(func() error { return s.dropOld(ctx) })
	return group.Wait()
}

// send makes one try.
func (s *Service) send(ctx context.Context, n store.Notice) {
	call, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	header := http.Header{}
	header.Set("Content-Type", contentType)
	header.Set("User-Agent", "Forge-Webhooks")
	sign(header, s.Webhooks.Secret, n.EventID, s.Store.Now(), n.Event)
	answer, err := egress.Post(call, s.client, s.Webhooks.Addresses[n.Address], header, n.Event)
	if ctx.Err() != nil { // our doing: its lease ends
		return
	}
	if err == nil && !answer.OK() {
		err = fmt.Errorf("it answered %s", answer)
	}
	err = s.Store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		notices := store.Notices{Tx: t}
		switch {
		case err == nil:
			return notices.Told(ctx, n, "")
		case answer.Refused():
			return notices.Told(ctx, n, err.Error())
		default:
			return notices.Failed(ctx, n, err.Error(), func(tries int) time.Duration {
				return max(due.Backoff(tries, firstPause, mostPause, rand.Float64), answer.Later)
			})
		}
	})
	if err != nil {
		s.Log.WarnContext(ctx, "event not settled; it is sent again when its lease is over", "webhook", n.Address, "event", n.EventID, "error", err)
	}
}

// dropOld removes, every now and then, what an address did not take in time.
func (s *Service) dropOld(ctx context.Context) error {
	tick := time.NewTicker(dropEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Drop(ctx); err != nil && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "old events not dropped; they are in a minute", "error", err)
			}
		}
	}
}

// Drop removes what addresses did not take in time.
func (s *Service) Drop(ctx context.Context) error {
	before := time.Unix(0, 0)
	if s.Webhooks.TryFor > 0 {
		before = s.Store.Now().Add(-s.Webhooks.TryFor)
	}
	var dropped map[string]int64
	err := s.Store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
		dropped, err = store.Notices{Tx: t}.Drop(ctx, before, mostWaiting)
		return err
	})
	for name, count := range dropped {
		s.Log.ErrorContext(ctx, "events were dropped that an address did not take in time", "webhook", name, "count", count)
	}
	return err
}

// ListOutgoingWebhooks shows how the addresses do.
func (s *Service) ListOutgoingWebhooks(ctx context.Context, _ *schedulerv1.ListOutgoingWebhooksRequest) (*schedulerv1.ListOutgoingWebhooksResponse, error) {
	known, err := store.Board{Store: s.Store}.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.ListOutgoingWebhooksResponse{}
	for _, name := range s.names {
		a := known[name]
		shown := &schedulerv1.OutgoingWebhook{
			Name: name, Host: strings.TrimSuffix(egress.Hidden(s.Webhooks.Addresses[name]), "/…"), Sent: a.Sent, Waiting: a.Waiting, Refused: a.Refused, Dropped: a.Dropped, Error: a.Error,
		}
		if !a.LastSent.IsZero() {
			shown.SendTime = timestamppb.New(a.LastSent)
		}
		if !a.LastFailed.IsZero() {
			shown.ErrorTime = timestamppb.New(a.LastFailed)
		}
		answer.Webhooks = append(answer.Webhooks, shown)
	}
	return answer, nil
}

// observe counts what is behind and what was lost, by address.
func (s *Service) observe(meter metric.Meter) error {
	waiting, err := meter.Int64ObservableGauge("forge.scheduler.webhooks_out.waiting", metric.WithDescription("Events that an address has still to be told of."))
	dropped, again := meter.Int64ObservableCounter("forge.scheduler.webhooks_out.dropped", metric.WithDescription("Events that an address did not take in time."))
	if err = cmp.Or(err, again); err != nil || len(s.names) == 0 {
		return err
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		known, err := store.Board{Store: s.Store}.Addresses(ctx)
		if err != nil { // a zero would be a count that begins anew
			s.Log.WarnContext(ctx, "metrics lack how far behind addresses of webhooks are", "error", err)
			return nil
		}
		for _, name := range s.names {
			to := metric.WithAttributes(attribute.String("address", name))
			o.ObserveInt64(waiting, known[name].Waiting, to)
			o.ObserveInt64(dropped, known[name].Dropped, to)
		}
		return nil
	}, waiting, dropped)
	return err
}
