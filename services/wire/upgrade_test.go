package wire_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// A newer version has migrated the database in a way that the older one may run on,
// and each process is replaced by one of the older version, one after the other, while
// webhooks come, builds run and people look. No request fails, nothing is lost and
// nothing runs twice: so Forge is upgraded, and so it goes back.
func TestReplicasAreReplacedUnderLoad(t *testing.T) {
	kittest.Require(t, "postgres")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newStorm(t, deployment{apart: true, postgres: true, replicas: 2}, seed)
	rain, stop := s.rain(30)
	looks, end := s.look()
	s.work()
	s.upgradeSchemas()
	for _, p := range s.processes {
		p.stop(t)
		p.begin(t)
		kittest.Eventually(t, patience, func() error {
			_, err := p.healthy("--ready")
			return err
		})
		if !strings.Contains(p.output.String(), "database was migrated by a newer Forge") && p.name != "config" {
			t.Errorf("%s does not say that a newer version has migrated its database", p.name)
		}
		s.work()
	}
	stop()
	end()
	s.calm()
	if again := rain.again.Load(); again > 0 {
		t.Errorf("%d webhooks were refused and sent again", again)
	}
	for _, d := range s.sim.Deliveries() {
		if d.StatusCode != http.StatusOK {
			t.Errorf("GitHub was answered %d", d.StatusCode)
		}
	}
	t.Logf("%d pull requests, %d other deliveries, %d looks", len(s.proposals), len(rain.accepted), looks.Load())
	if looks.Load() < 10 {
		t.Errorf("people have looked %d times", looks.Load())
	}
	rain.isKnown()
	s.everyDeliveryIsDecided()
	builds := s.everyBuildIsRight()
	s.everyCommandRanOnce(builds)
	s.nothingIsLeft()
}

// upgradeSchemas does what the next version would do at its start.
func (s *storm) upgradeSchemas() {
	s.t.Helper()
	url := ""
	for _, variable := range s.env {
		if value, found := strings.CutPrefix(variable, "FORGE_DATABASE_URL="); found {
			url = value
		}
	}
	for room, migrations := range map[string]fs.FS{"gateway": gateway.Migrations(), "reporter": reporter.Migrations(), "scheduler": scheduler.Migrations()} {
		next := fstest.MapFS{}
		newest := 0
		files, err := fs.Glob(migrations, "*.sql")
		if err != nil {
			s.t.Fatal(err)
		}
		for _, name := range files {
			text, err := fs.ReadFile(migrations, name)
			if err != nil {
				s.t.Fatal(err)
			}
			next[name] = &fstest.MapFile{Data: text}
			number, _, _ := strings.Cut(path.Base(name), "_")
			if newest, err = strconv.Atoi(number); err != nil {
				s.t.Fatal(err)
			}
		}
		next[fmt.Sprintf("%05d_next.sql", newest+1)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"-- oldest: %d\n-- +goose Up\nCREATE TABLE of_the_next_version (id BIGINT PRIMARY KEY);\n", newest)}
		db, err := sqldb.Open(s.t.Context(), sqldb.Config{URL: url, Room: room, Migrations: next})
		if err != nil {
			s.t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// look has somebody look at builds and deliveries until end is called. Each request is
// to be answered.
func (s *storm) look() (looks *atomic.Int64, end func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	looks = &atomic.Int64{}
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			select {
			case <-ctx.Done():
			case <-tick.C:
				at := []string{"/v1/builds", "/v1/deliveries", "/v1/targets"}[n%3]
				if err := s.lookAt(ctx, at); err != nil {
					s.t.Errorf("GET %s: %v", at, err)
				}
				looks.Add(1)
			}
		}
	}()
	return looks, func() { cancel(); <-done }
}

// lookAt makes one request, to its end.
func (s *storm) lookAt(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.http+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", answer.StatusCode, text)
	}
	return err
}
