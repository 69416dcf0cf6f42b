package gateway

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// fill posts deliveries until one is not kept, and checks that it is said how.
// It returns the ids of those that were.
func (w *world) fill(prefix string) (kept []string) {
	w.t.Helper()
	large := []byte(`{"x":"` + strings.Repeat("0123456789abcdef", 4<<10) + `"}`)
	for n := range 10000 {
		// What compresses well fills nothing.
		body := bytes.ReplaceAll(large, []byte("0123"), fmt.Appendf(nil, "%04x", n*2654435761%65536))
		id := fmt.Sprintf("%s%d", prefix, n)
		resp, err := http.DefaultTransport.RoundTrip(hook{event: "star", id: id, body: body}.request(w.t, w.http.URL))
		if err != nil {
			w.t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			kept = append(kept, id)
		case http.StatusServiceUnavailable:
			if resp.Header.Get("Retry-After") == "" || !strings.Contains(string(answer), "send it again") {
				w.t.Errorf("refused with %v %s", resp.Header, answer)
			}
			return kept
		default:
			w.t.Fatalf("%s: %s", resp.Status, answer)
		}
	}
	w.t.Fatal("the disk is never full")
	return nil
}

func TestFullDiskRefusesAndServesAgainWhenThereIsRoom(t *testing.T) {
	limit := func(pages int) func(*sqldb.DB) {
		return func(db *sqldb.DB) {
			err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	type disk struct {
		dir        string
		full, room func(*sqldb.DB)
	}
	disks := map[string]disk{"a database at its limit": {t.TempDir(), limit(200), limit(1 << 30)}}
	// A disk that is really full can be had by root alone.
	if dir := t.TempDir(); syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m") == nil {
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		disks["a small disk"] = disk{dir, func(*sqldb.DB) {}, func(*sqldb.DB) { os.Remove(ballast) }}
	}
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: disk.dir, Room: "gateway", Migrations: Migrations()})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			log := &kittest.Logbook{}
			w := start(t, db, func(d *Deps) { d.Log = slog.New(slog.NewTextHandler(log, nil)) })
			defer w.stop()
			disk.full(db)
			kept := w.fill("full-")
			disk.room(db)
			kittest.Eventually(t, patience, func() error {
				if code, body := w.post(hook{event: "star", id: "after", body: star}); code != 200 {
					return errors.New(body)
				}
				return nil
			})
			w.ends("after")
			here, err := w.service.store.known(t.Context(), append(kept, "after"))
			if err != nil || len(here) != len(kept)+1 || w.count() != len(here) {
				t.Errorf("%d are stored, %d of those that were kept, which are %d: %v", w.count(), len(here), len(kept)+1, err)
			}
			for text, want := range map[string]int{"storing deliveries failed; GitHub is answered 503 until they can be stored": 1, "deliveries are stored again": 1, "full": 1} {
				if got := strings.Count(log.String(), text); got < want || got > want && text != "full" {
					t.Errorf("the log says %q %d times", text, got)
				}
			}
		})
	}
}

func TestBodiesInFlightAreBounded(t *testing.T) {
	w := onSQLite(t, nil)
	// Claims alone take nothing.
	for range 50 {
		conn := w.dialRaw(fmt.Sprintf("Content-Length: %d\r\n", maxPayload))
		defer conn.Close()
	}
	if code, body := w.post(hook{event: "star", id: "among claims", body: star}); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	for size := maxHeldBytes; size > 0; { // all there is, down to the last byte
		if !w.service.budget.take(size, 0) {
			size /= 2
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(hook{event: "star", id: "too many", body: star}.request(t, w.http.URL))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("beyond the bytes: %s %v", resp.Status, resp.Header)
	}
	b := &budget{}
	for range maxHeldBodies {
		if !b.take(1, 1) {
			t.Fatal("refused below the bound")
		}
	}
	if b.take(1, 1) {
		t.Error("a body too many is taken")
	}
	b.give(1, 1)
	if !b.take(1, 1) {
		t.Error("what is given back is not there")
	}
}

// dialRaw sends the beginning of a request, whose body never comes.
func (w *world) dialRaw(header string) net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v1/listen HTTP/1.1\r\nHost: forge\r\nX-GitHub-Event: star\r\n%s\r\n{", header)
	return conn
}

func TestWhatIsSlowOrTooLargeIsCutOff(t *testing.T) {
	w := onSQLite(t, nil)
	server := w.service.Server()
	if server.ReadTimeout <= 0 || server.ReadHeaderTimeout <= 0 || server.MaxHeaderBytes <= 0 {
		t.Fatalf("no deadlines: %+v", server)
	}
	server.ReadTimeout, server.ReadHeaderTimeout = 3*time.Second, 3*time.Second
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving, asking sync.WaitGroup
	serving.Go(func() { server.Serve(lis) })
	defer serving.Wait()
	defer server.Close()
	for name, c := range map[string]struct {
		rest string
		code int // 0: the connection is closed
	}{
		"body":             {"Content-Length: 100\r\n\r\n{", 400},
		"chunked body":     {"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 400},
		"chunk":            {"Transfer-Encoding: chunked\r\n\r\nff\r\n{", 400},
		"header":           {"X-Slow: ", 0},
		"too large header": {"X-Large: " + strings.Repeat("x", 2*server.MaxHeaderBytes) + "\r\n\r\n", 431},
		"too many headers": {strings.Repeat("X-More: x\r\n", server.MaxHeaderBytes/8) + "\r\n", 431},
	} {
		asking.Go(func() {
			conn, err := net.Dial("tcp", lis.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "POST /v1/listen HTTP/1.1\r\nHost: forge\r\nX-GitHub-Event: star\r\n"+c.rest)
			code := 0
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				resp.Body.Close()
				code = resp.StatusCode
			}
			if code != c.code {
				t.Errorf("%s: %d, want %d", name, code, c.code)
			}
		})
	}
	asking.Wait()
	if w.service.budget.bodies != 0 || w.service.budget.bytes != 0 {
		t.Errorf("it is still in the budget: %d bodies, %d bytes", w.service.budget.bodies, w.service.budget.bytes)
	}
}

func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	w := onSQLite(t, nil)
	for range 2000 {
		conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if code, body := w.post(hook{event: "star", id: "a1", body: star}); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

func TestNastyPayloadsAreKeptAndDecided(t *testing.T) {
	w := onSQLite(t, nil)
	for id, c := range map[string]struct {
		event string
		body  []byte
		want  eventv1.Reason
	}{
		"deep":        {"pull_request", bytes.Repeat([]byte("["), 10_000), eventv1.Reason_REASON_MALFORMED},
		"deep-object": {"star", append(bytes.Repeat([]byte(`{"a":`), 10_000), bytes.Repeat([]byte("}"), 10_000)...), eventv1.Reason_REASON_MALFORMED},
		"bytes":       {"star", []byte("{\"action\":\"\xff\xfe\x00\"}"), eventv1.Reason_REASON_MALFORMED},
		"no-utf8":     {"star", []byte("{\"action\":\"\xff\xfe\"}"), eventv1.Reason_REASON_EVENT_IGNORED},
		"nul":         {"star", []byte(`{"action":"a\u0000b"}`), eventv1.Reason_REASON_EVENT_IGNORED},
		"wrong-kind":  {"check_run", pullRequestPayload(), eventv1.Reason_REASON_MALFORMED},
		"array":       {"push", []byte(`[1,2]`), eventv1.Reason_REASON_MALFORMED},
		"null":        {"push", []byte(`null`), eventv1.Reason_REASON_MALFORMED},
	} {
		if code, body := w.post(hook{event: c.event, id: id, body: c.body}); code != 200 {
			t.Errorf("%s: %d %s", id, code, body)
			continue
		}
		d := w.ends(id)
		if got := d.GetForwards()[0].GetDecision().GetReason(); got != c.want {
			t.Errorf("%s: %v %s, want %v", id, got, d.GetForwards()[0].GetDecision().GetText(), c.want)
		}
		if !bytes.Equal(d.GetPayload(), c.body) {
			t.Errorf("%s: another payload is kept", id)
		}
	}
}

func TestFailedBatchTakesItsIDsBack(t *testing.T) {
	db := open(t)
	s := &store{db: db}
	b := newInbox(s, kittest.Log(t), func() {})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.run(ctx) })
	defer running.Wait()
	defer stop()
	answered := make(chan struct{}, 2)
	refuse := func(sql string) {
		if err := exec(db, sql); err != nil {
			t.Fatal(err)
		}
	}
	refuse("CREATE TRIGGER refuse BEFORE INSERT ON payloads BEGIN SELECT RAISE(ABORT, 'no'); END")
	// Two of one id come while the disk is slow.
	put := func() (errs [2]error) {
		err := db.Write(t.Context(), func(ctx context.Context, _ *sql.Tx) error {
			for i := range errs {
				running.Go(func() {
					errs[i] = b.put(ctx, &arrival{delivery: delivery{guid: "x", event: "star", received: time.Now()}, payload: packed(star)})
					answered <- struct{}{}
				})
			}
			select {
			case <-answered:
				t.Error("answered before it is on disk")
			case <-time.After(50 * time.Millisecond):
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for range errs {
			<-answered
		}
		return errs
	}
	if errs := put(); errs[0] == nil || errs[1] == nil {
		t.Fatalf("kept without a payload: %v", errs)
	}
	refuse("DROP TRIGGER refuse")
	if errs := put(); errs[0] != nil || errs[1] != nil {
		t.Errorf("the same id, once there is room: %v", errs)
	}
	if here, err := s.known(t.Context(), []string{"x"}); err != nil || len(here) != 1 {
		t.Errorf("stored: %v, %v", here, err)
	}
}

func exec(db *sqldb.DB, text string) error {
	return db.Write(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, text)
		return err
	})
}
