package kittest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// probe is a test that may fail or be skipped without harm.
type probe struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (p *probe) Context() context.Context  { return context.Background() }
func (p *probe) Name() string              { return "TestProbe" }
func (p *probe) Helper()                   {}
func (p *probe) Cleanup(f func())          { p.cleanups = append(p.cleanups, f) }
func (p *probe) Log(args ...any)           { p.said = append(p.said, fmt.Sprint(args...)) }
func (p *probe) Errorf(f string, a ...any) { p.said = append(p.said, "error: "+fmt.Sprintf(f, a...)) }
func (p *probe) Fatalf(f string, a ...any) { p.end("fatal: " + fmt.Sprintf(f, a...)) }
func (p *probe) Fatal(args ...any)         { p.end("fatal: " + fmt.Sprint(args...)) }
func (p *probe) Skipf(f string, a ...any)  { p.end("skip: " + fmt.Sprintf(f, a...)) }

func (p *probe) end(said string) {
	p.said = append(p.said, said)
	runtime.Goexit()
}

// run returns what the test said.
func run(test func(t testing.TB)) string {
	p := &probe{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(p)
	}()
	<-done
	for _, cleanup := range slices.Backward(p.cleanups) {
		cleanup()
	}
	return strings.Join(p.said, "\n")
}

func TestWhatIsMissingIsSkippedLoudlyOrFails(t *testing.T) {
	const how = "set TEST_POSTGRES_URL to a server where databases may be created, like postgres://postgres@127.0.0.1:5432/postgres"
	t.Setenv("TEST_SKIPS", "")
	for _, c := range []struct{ url, required, want string }{
		{"", "", "skip: SKIPPED for want of postgres: " + how},
		{"", "docker,postgres", "fatal: TEST_REQUIRE asks for postgres, which is not there: " + how},
		{"postgres://x", "docker,postgres", ""},
	} {
		t.Setenv("TEST_POSTGRES_URL", c.url)
		t.Setenv("TEST_REQUIRE", c.required)
		if got := run(func(t testing.TB) { kittest.Require(t, "postgres") }); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	skips := filepath.Join(t.TempDir(), "skips")
	t.Setenv("TEST_SKIPS", skips)
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	t.Setenv("PATH", "/nonexistent")
	t.Setenv("TEST_PAYLOADS", t.TempDir())
	t.Setenv("TEST_REQUIRE", "")
	for _, name := range []string{"docker", "browser", "payloads"} {
		if got := run(func(t testing.TB) { kittest.Require(t, name) }); !strings.HasPrefix(got, "skip: SKIPPED for want of "+name) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := run(func(t testing.TB) { kittest.Require(t, "postgers") }); !strings.HasPrefix(got, "fatal:") {
		t.Errorf("a misspelt need: %s", got)
	}
	noted, err := os.ReadFile(skips)
	if err != nil {
		t.Fatal(err)
	}
	kittest.Want(t, string(noted), "docker: TestProbe\nbrowser: TestProbe\npayloads: TestProbe\n")
}

func TestGoldenFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("UPDATE", "")
	golden := func(text string) string {
		return run(func(t testing.TB) { kittest.Golden(t, "deep/name", []byte(text)) })
	}
	if got := golden("a"); got != "fatal: testdata/deep/name.golden is not there; write it with: UPDATE=1 go test" {
		t.Error(got)
	}
	t.Setenv("UPDATE", "1")
	if got := golden("a"); got != "" {
		t.Error(got)
	}
	t.Setenv("UPDATE", "")
	if got := golden("a"); got != "" {
		t.Error(got)
	}
	if got := golden("b"); !strings.HasPrefix(got, "error: testdata/deep/name.golden differs") {
		t.Error(got)
	}
}

func TestLogGoesToTheTestUntilItEnds(t *testing.T) {
	var after func()
	got := run(func(t testing.TB) {
		log := kittest.Log(t)
		log.Debug("during")
		after = func() { log.Info("after") }
	})
	after() // must not panic
	if strings.Count(got, "\n") != 0 || !strings.Contains(got, "msg=during") {
		t.Errorf("logged %q", got)
	}
}

func TestEventuallyWaitsAndThenSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		holds := func() error {
			if time.Since(start) < time.Second {
				return errors.New("too early")
			}
			return nil
		}
		if got := run(func(t testing.TB) { kittest.Eventually(t, 500*time.Millisecond, holds) }); got != "fatal: not within 500ms: too early" {
			t.Error(got)
		}
		if got := run(func(t testing.TB) { kittest.Eventually(t, time.Minute, holds) }); got != "" || time.Since(start) > 1010*time.Millisecond {
			t.Errorf("%s after %v", got, time.Since(start))
		}
	})
}

func TestClockStandsStillUntilMoved(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := kittest.NewClock(start)
	clock.Advance(time.Hour)
	if got := clock.Now(); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("clock shows %v", got)
	}
}

func TestEachDatabaseStartsEmptyAndSurvivesARestart(t *testing.T) {
	migrations := fstest.MapFS{"001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (b TEXT);")}}
	kittest.DBs(t, "config", migrations, func(t *testing.T, open func() *sqldb.DB) {
		for want := range 2 {
			db := open()
			var rows int
			if err := db.Read().QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&rows); err != nil || rows != want {
				t.Errorf("%d rows, %v; want %d", rows, err, want)
			}
			err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO a VALUES ('c')")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}
