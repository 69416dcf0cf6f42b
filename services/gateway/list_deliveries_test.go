package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func packed(payload []byte) []byte { return s2.EncodeSnappy(nil, payload) }

func TestListFiltersAndPages(t *testing.T) {
	kittest.DBs(t, "gateway", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		w := start(t, db, nil)
		base := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		events := []string{"pull_request", "push", "star", "pull_request", "push"}
		for i, event := range events {
			a := &arrival{
				delivery: delivery{guid: fmt.Sprintf("l%d", i), event: event, received: base.Add(time.Duration(i) * time.Hour)},
				payload:  packed(star),
			}
			if err := w.service.store.insert(t.Context(), []*arrival{a}); err != nil {
				t.Fatal(err)
			}
		}
		w.service.wake()
		for i := range events {
			w.ends(fmt.Sprintf("l%d", i))
		}
		// A delivery far from due stays pending; one that was given up is kept.
		later := &arrival{delivery: delivery{guid: "later", event: "push", received: time.Now().Add(time.Hour)}, payload: packed(star)}
		gone := &arrival{delivery: delivery{guid: "gone", event: "pull_request", received: time.Now().Add(time.Hour)}, payload: packed(star)}
		if err := w.service.store.insert(t.Context(), []*arrival{later, gone}); err != nil {
			t.Fatal(err)
		}
		d, err := w.service.store.byGUID(t.Context(), "gone")
		if err != nil {
			t.Fatal(err)
		}
		err = w.service.store.settle(t.Context(), []settlement{{forward{
			delivery: d.id, receiver: "scheduler", state: kept,
			decision: &eventv1.Decision{Reason: eventv1.Reason_REASON_GAVE_UP, Text: "gave up"},
		}, summary{repository: "acme/web"}}})
		if err != nil {
			t.Fatal(err)
		}
		at := func(hour int) *timestamppb.Timestamp {
			return timestamppb.New(base.Add(time.Duration(hour) * time.Hour))
		}
		for name, c := range map[string]struct {
			req  *gatewayv1.ListDeliveriesRequest
			want string
		}{
			"all":        {&gatewayv1.ListDeliveriesRequest{}, "gone later l4 l3 l2 l1 l0"},
			"event":      {&gatewayv1.ListDeliveriesRequest{Event: "push"}, "later l4 l1"},
			"repository": {&gatewayv1.ListDeliveriesRequest{Repository: "acme/web"}, "gone l2"},
			"pending":    {&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_PENDING}, "later"},
			"kept":       {&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_KEPT}, "gone"},
			"decided":    {&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_DECIDED}, "l4 l3 l2 l1 l0"},
			"time":       {&gatewayv1.ListDeliveriesRequest{ReceiveTimeFrom: at(1), ReceiveTimeBefore: at(3)}, "l2 l1"},
			"both":       {&gatewayv1.ListDeliveriesRequest{Event: "push", ReceiveTimeBefore: at(3)}, "l1"},
			"none":       {&gatewayv1.ListDeliveriesRequest{Event: "nothing' OR '1'='1"}, ""},
		} {
			for _, size := range []int32{0, 1, 2, 1000} {
				var got []string
				for page, req := 0, c.req; ; page++ {
					req.PageSize = size
					resp, err := w.deliveries().ListDeliveries(admin(t.Context()), req)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range resp.GetDeliveries() {
						got = append(got, d.GetId())
						if d.GetPayload() != nil || d.GetHeaders() != nil || len(d.GetForwards()) == 0 {
							t.Errorf("%s: listed as %v", name, d)
						}
					}
					if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
						break
					}
				}
				if strings.Join(got, " ") != c.want {
					t.Errorf("%s by %d: %s, want %s", name, size, got, c.want)
				}
			}
		}
	})
}

func TestBrokenListRequestsSayWhatIsWrong(t *testing.T) {
	w := onSQLite(t, nil)
	for want, req := range map[string]*gatewayv1.ListDeliveriesRequest{
		"page_token is not one of ours":                                      {PageToken: "x"},
		"page_size is -1: expected 1 to 500, or 0 for 50":                    {PageSize: -1},
		"receive_time_from is no moment: write it like 2026-11-23T18:00:00Z": {ReceiveTimeFrom: &timestamppb.Timestamp{Nanos: -1}},
	} {
		if _, err := w.deliveries().ListDeliveries(admin(t.Context()), req); !fault.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err := w.deliveries().GetDelivery(admin(t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: "nope"})
	if !fault.Is(err, fault.NotFound) || err.Error() != "no delivery nope: it was never received, or pruned since" {
		t.Errorf("unknown: %v", err)
	}
	if _, err := w.deliveries().ListDeliveries(t.Context(), &gatewayv1.ListDeliveriesRequest{}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("without the admin token: %v", err)
	}
}

// Whoever reads while a delivery is decided sees what it told beside the decision.
func TestNoDecisionIsShownWithoutItsAction(t *testing.T) {
	kittest.Require(t, "postgres") // where a reader can be held up between two reads
	for name, read := range map[string]func(*world) (*gatewayv1.Delivery, error){
		"get": func(w *world) (*gatewayv1.Delivery, error) {
			resp, err := w.deliveries().GetDelivery(admin(t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: "d1"})
			return resp.GetDelivery(), err
		},
		"list": func(w *world) (*gatewayv1.Delivery, error) {
			resp, err := w.deliveries().ListDeliveries(admin(t.Context()), &gatewayv1.ListDeliveriesRequest{})
			return append(resp.GetDeliveries(), nil)[0], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: kittest.Postgres(t, "gateway", Migrations()), Room: "gateway", Migrations: Migrations()})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			w := start(t, db, nil)
			defer w.stop()
			a := &arrival{delivery: delivery{guid: "d1", event: "push", received: time.Now().Add(time.Hour)}, payload: packed(star)}
			if err := w.service.store.insert(t.Context(), []*arrival{a}); err != nil {
				t.Fatal(err)
			}
			var (
				reading sync.WaitGroup
				shown   *gatewayv1.Delivery
				readErr error
			)
			err = db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "LOCK TABLE forwards"); err != nil {
					return err
				}
				reading.Go(func() { shown, readErr = read(w) })
				kittest.Eventually(t, patience, func() error {
					var held bool
					err := db.Read().QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
						WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'SELECT delivery, receiver%')`).Scan(&held)
					if err == nil && !held {
						err = errors.New("nobody waits for the forwards")
					}
					return err
				})
				decision, err := proto.Marshal(&eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted"})
				if err != nil {
					return err
				}
				if _, err := tx.ExecContext(ctx, "UPDATE forwards SET state = 2, decision = $1", decision); err != nil {
					return err
				}
				_, err = tx.ExecContext(ctx, "UPDATE deliveries SET action = 'created'")
				return err
			})
			reading.Wait()
			if err = errors.Join(err, readErr); err != nil {
				t.Fatal(err)
			}
			if shown.GetForwards()[0].GetDecision().GetText() != "noted" || shown.GetAction() != "created" {
				t.Errorf("shown as %v", shown)
			}
		})
	}
}
