package reporter

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// chances has a row of them for each thing, so that a seed means the same in
// whatever order calls come.
type chances struct {
	seed uint64
	mu   sync.Mutex
	rows map[string]*rand.Rand
}

func (c *chances) of(thing string) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows[thing] == nil {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(thing))
		c.rows[thing] = rand.New(rand.NewPCG(c.seed, sum.Sum64()))
	}
	return c.rows[thing].Float64()
}

// Sixty pull requests are built while a fifth of GitHub's answers, and of the
// tokens, is 502. One of them has bad luck six times in a row.
func TestSixtyBuildsAreToldWithin20SecondsOfAFlakyGitHub(t *testing.T) {
	const builds, within = 60, 20 * time.Second
	const hangs = 6 * patience // of this machine's time, which a busy one may need
	for seed := range uint64(10) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			w := newWorld(t)
			w.adjust = func(d *Deps) {
				random := rand.New(rand.NewPCG(seed, 1))
				var mu sync.Mutex
				d.Random = func() float64 {
					mu.Lock()
					defer mu.Unlock()
					return random.Float64()
				}
			}
			w.commits(builds)
			numbers := map[string]int{}
			for i := range builds {
				sha, err := w.sim.Head("octo", "shop", fmt.Sprint("b", i))
				w.must(err)
				numbers[sha] = i
			}
			unluckyCommit, err := w.sim.Head("octo", "shop", fmt.Sprint("b", seed))
			w.must(err)
			var over atomic.Bool // the builds are
			chance := &chances{seed: seed, rows: map[string]*rand.Rand{}}
			var unlucky atomic.Int32
			w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
				if path.Base(r.URL.Path) == unluckyCommit && over.Load() && unlucky.Add(1) <= 6 {
					return responding(502, nil, "")(rw, r)
				}
				return chance.of(strconv.Itoa(numbers[path.Base(r.URL.Path)])) < 0.2 && responding(502, nil, "")(rw, r)
			})
			mint := w.mint
			w.minting(func(req *configv1.CreateTokenRequest) (string, error) {
				if chance.of("token") < 0.2 {
					return "", fault.New(fault.Unavailable, "GitHub had trouble")
				}
				return mint(req)
			})
			s := w.reporter(sqlite(t))
			w.background(s.Run)
			build := func(i int, state schedulerv1.Build_State) *schedulerv1.Build {
				b := like(w.build(state), state)
				b.Id = fmt.Sprint("b", i)
				b.Context = fmt.Sprintf("forge/test-%d", i)
				b.Sha, _ = w.sim.Head("octo", "shop", b.GetId())
				return b
			}
			ended := map[string]time.Time{}
			for i := range builds {
				w.report(s, 1, build(i, queued))
			}
			// Time passes once all that is due has been tried: however slow this machine is,
			// what is measured is how long the reporter lets things wait.
			tick := func() {
				var due int
				w.must(s.store.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM targets WHERE lease > 0 OR (due > 0 AND due <= $1)`,
					sqldb.Micros(w.clock.Now())).Scan(&due))
				if due == 0 {
					w.clock.Advance(time.Second / 4)
				}
				s.wake()
			}
			begin := w.clock.Now()
			kittest.Eventually(t, hangs, func() error {
				tick()
				if w.clock.Now().Sub(begin) < 3*time.Second {
					return errors.New("the builds still run")
				}
				return nil
			})
			over.Store(true)
			for i := range builds {
				b := build(i, good)
				ended[b.GetContext()] = w.clock.Now()
				w.report(s, 2, b)
				tick()
			}
			kittest.Eventually(t, hangs, func() error {
				tick()
				for _, one := range w.targets(s) {
					if one.GetState() != told {
						return fmt.Errorf("target is %v", one)
					}
				}
				return nil
			})
			last := time.Duration(0)
			for _, one := range w.targets(s) {
				last = max(last, one.GetTellTime().AsTime().Sub(ended[one.GetContext()]))
			}
			if last > within {
				t.Errorf("the last of %d was told after %v, want %v", builds, last, within)
			}
		})
	}
}

// In an outage the pauses grow as ever; bad luck of one target alone does not
// hold it back.
func TestPausesGrowInAnOutageAlone(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 32 * time.Second, 1: 2 * time.Second, outageFailures - 1: 2 * time.Second, outageFailures: 32 * time.Second} {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		one := target{version: 1, desired: display{state: "success"}, attempts: 5}
		one.fail(1, failure{state: failing, failures: failures, text: "502"}, now, func() float64 { return 0 })
		if pause := one.due.Sub(now); pause != want {
			t.Errorf("after %d failures of the installation a pause of %v, want %v", failures, pause, want)
		}
	}
	before := 2 * time.Second
	for attempts := unluckyTries + 1; attempts < 2*unluckyTries; attempts++ {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		one := target{version: 1, desired: display{state: "success"}, attempts: attempts - 1}
		one.fail(1, failure{state: failing, failures: 1, text: "502"}, now, func() float64 { return 0 })
		pause := one.due.Sub(now)
		if want := min(2*before, mostPause); pause != want {
			t.Errorf("after %d failures of the target alone a pause of %v, want %v", attempts, pause, want)
		}
		before = pause
	}
	l, _ := newTestLimiter()
	l.recordAttempt(1, true)
	if n := l.recordAttempt(1, true); n != 2 {
		t.Errorf("%d failures in a row, want 2", n)
	}
	if l.recordAttempt(1, false); l.recordAttempt(1, true) != 1 || l.recordAttempt(2, true) != 1 {
		t.Error("failures of before, or of another installation, count")
	}
}
