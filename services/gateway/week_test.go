package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	weekGUID  = "11111111-2222-4333-8444-555555555555"
	otherGUID = "11111111-2222-4333-8444-666666666666"
	weekSHA   = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd"
	weekRepo  = "acme/shop-000"
)

// weekParts is what differs between deliveries: their ids are spread as GitHub's are,
// their repositories are two hundred.
func weekParts(recorded string) []kittest.Part {
	return []kittest.Part{
		{Name: "guid", Text: recorded, SQL: "md5(n::text)::uuid::text"},
		{Name: "sha", Text: weekSHA, SQL: "substr(md5('a' || n) || md5('b' || n), 1, 40)"},
		{Name: "repository", Text: weekRepo, SQL: "'acme/shop-' || lpad((n % 200)::text, 3, '0')"},
		{
			Name: "id", Columns: []string{"deliveries.id", "payloads.delivery", "forwards.delivery"},
			SQL: "nextval('gateway.deliveries_id_seq')",
		},
	}
}

// weekDelivery has a gateway store and relay one delivery of 24 KB, and records it.
func weekDelivery(t *testing.T, db *sqldb.DB, guid, event string) *kittest.Recording {
	t.Helper()
	w := start(t, db, nil)
	defer w.stop()
	kittest.Eventually(t, patience, func() error {
		var mark watermark
		if err := w.service.store.recall(t.Context(), watermarkNote, &mark); err != nil || mark.Known.IsZero() {
			return fmt.Errorf("it has not looked for what is missing: %w", err)
		}
		return nil
	})
	return kittest.Record(t, db.Read(), "gateway", func() {
		status, text := w.post(hook{event: event, id: guid, body: weekPayload()})
		kittest.Want(t, status, 200, text)
		w.ends(guid)
	}).Without("notes") // of looks at GitHub, which begin by themselves
}

// weekPayload is as long as GitHub's are, and shrinks as they do.
func weekPayload() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	unique := make([]byte, 4000)
	for n := range unique {
		unique[n] = byte('0' + random.IntN(75))
	}
	text := strings.Map(func(r rune) rune {
		if strings.ContainsRune(`"\\<>`, r) {
			return 'x'
		}
		return r
	}, string(unique)) + strings.Repeat("lorem ipsum ", 1600)
	return []byte(`{"action":"opened","number":5,"pad":"` + text + `","pull_request":{"number":5,"state":"open","updated_at":"2026-01-02T03:04:06Z",
		"head":{"ref":"fix","sha":"` + weekSHA + `","repo":null},"base":{"ref":"main","sha":"c2"}},"sender":{"id":9,"login":"ann","type":"User"},
		"installation":{"id":7},"repository":{"id":11,"name":"` + strings.TrimPrefix(weekRepo, "acme/") + `","full_name":"` + weekRepo + `","owner":{"id":3,"login":"acme"}}}`)
}

func openAt(t *testing.T, cfg sqldb.Config) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// What is played back leaves what the gateway itself leaves, statement by statement.
func TestADeliveryPlayedBackIsADelivery(t *testing.T) {
	kittest.Require(t, "postgres")
	db := openAt(t, sqldb.Config{URL: kittest.PostgresURL(t), Room: "gateway", Migrations: Migrations()})
	first := weekDelivery(t, db, weekGUID, "pull_request")
	played := kittest.Record(t, db.Read(), "gateway", func() {
		first.Play(t, db.Read(), kittest.Copies{First: 1, Count: 1, Shift: time.Hour}, weekParts(weekGUID)...)
	})
	second := weekDelivery(t, db, otherGUID, "pull_request")
	hidden := []string{
		"deliveries.id", "payloads.delivery", "forwards.delivery", "deliveries.guid", "deliveries.headers", "deliveries.repository", "deliveries.pull", "deliveries.sha",
	}
	kittest.Want(t, played.Like(hidden...), second.Like(hidden...))
}

func TestAWeekOfDeliveriesIsKeptFlat(t *testing.T) { keptFlat(t, 1000) }

func TestSoakAWeekOfDeliveriesIsKeptFlat(t *testing.T) {
	kittest.Require(t, "soak")
	keptFlat(t, kittest.PerDay(t, 50000))
}

// keptFlat lives a week of so many deliveries a day. Whatever they bring, tables stop
// growing once what is old goes, and nothing that the gateway does reads more rows than
// on the first day. Payloads are kept for two days, deliveries for four.
func keptFlat(t *testing.T, perDay int64) {
	t.Helper()
	kittest.Require(t, "postgres")
	cfg := sqldb.Config{URL: kittest.PostgresURL(t), Room: "gateway", Migrations: Migrations()}
	db := openAt(t, cfg)
	decided, ignored := weekDelivery(t, db, weekGUID, "pull_request"), weekDelivery(t, db, otherGUID, "status")
	begin := time.Now()
	s := &store{db: db}
	week := kittest.Week{DB: db.Read(), Room: "gateway", Begin: begin, PerDay: perDay}
	week.Live(t, func(copies kittest.Copies, now time.Time) {
		first, rest := copies.Split(copies.Count / 2)
		decided.Play(t, db.Read(), first, weekParts(weekGUID)...)
		ignored.Play(t, db.Read(), rest, weekParts(otherGUID)...)
		weekPrune(t, s, "payloads", now.Add(-2*24*time.Hour))
		weekPrune(t, s, "deliveries", now.Add(-4*24*time.Hour))
	}, func(now time.Time) { week.Costs(t, cfg, weekCosts(t, now, perDay)) })
}

func weekPrune(t *testing.T, s *store, table string, before time.Time) {
	t.Helper()
	for n := pruneRows; n == pruneRows; {
		var err error
		if n, err = s.prune(t.Context(), table, before, pruneRows); err != nil {
			t.Fatal(err)
		}
	}
}

// weekCosts are what a gateway does all day.
func weekCosts(t *testing.T, now time.Time, perDay int64) []kittest.Cost {
	list := func(req *gatewayv1.ListDeliveriesRequest) func(*sqldb.DB) {
		return func(db *sqldb.DB) {
			if _, err := (&Service{store: &store{db: db}}).ListDeliveries(t.Context(), req); err != nil {
				t.Error(err)
			}
		}
	}
	stored := func(do func(s *store) error) func(*sqldb.DB) {
		return func(db *sqldb.DB) {
			if err := do(&store{db: db}); err != nil {
				t.Error(err)
			}
		}
	}
	const page = 1000 // index entries, and rows of three tables, with what is dead among them
	return []kittest.Cost{
		{Name: "start-up", Rows: page, Do: stored(func(s *store) error {
			_, err := s.claim(t.Context(), "scheduler", relayWorkers, now, now)
			return errors.Join(err, s.recall(t.Context(), watermarkNote, &watermark{}))
		})},
		{Name: "list", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{})},
		{Name: "list of a repository", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{Repository: weekRepo})},
		{Name: "list of an event", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{Event: "pull_request"})},
		{Name: "list of an event that never came", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{Event: "release"})},
		{Name: "list of what is pending", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_PENDING})},
		{Name: "list of what is kept", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_KEPT})},
		{Name: "list of what is decided", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_DECIDED})},
		{Name: "list up to a moment", Rows: page, Do: list(&gatewayv1.ListDeliveriesRequest{ReceiveTimeBefore: timestamppb.New(now.Add(-36 * time.Hour))})},
		// It may read that hour, but not much more.
		{Name: "list of an hour", Rows: page + perDay/8, Do: list(&gatewayv1.ListDeliveriesRequest{
			ReceiveTimeFrom: timestamppb.New(now.Add(-37 * time.Hour)), ReceiveTimeBefore: timestamppb.New(now.Add(-36 * time.Hour)),
		})},
		{Name: "metrics", Rows: page, Do: stored(func(s *store) error { _, err := s.behind(t.Context()); return err })},
		{Name: "prune with nothing old", Rows: page, Do: stored(func(s *store) error {
			_, err := s.prune(t.Context(), "payloads", now.Add(-2*24*time.Hour), pruneRows)
			return err
		})},
		{Name: "one delivery", Rows: page, Do: stored(func(s *store) error {
			guid := uuid.NewString()
			a := &arrival{delivery: delivery{guid: guid, event: "pull_request", received: now}, payload: []byte("none")}
			err := s.insert(t.Context(), []*arrival{a})
			claimed, claimErr := s.claim(t.Context(), "scheduler", 1, now, now.Add(time.Minute))
			if err := errors.Join(err, claimErr); err != nil || len(claimed) != 1 {
				return fmt.Errorf("claimed %d: %w", len(claimed), err)
			}
			claimed[0].state = decided
			return s.settle(t.Context(), []settlement{{claimed[0], summary{action: "opened", repository: weekRepo}}})
		})},
	}
}
