package reporter

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestWhatIsLeftOfADeadReporterIsTold(t *testing.T) {
	databases(t, func(_ *testing.T, w *world, open func() *sqldb.DB) {
		db := open()
		s := w.reporter(db)
		w.report(s, 1, w.build(queued))
		_, err := s.store.claim(w.t.Context(), 9, w.clock.Now(), leaseUntil(w.clock.Now()), all) // and dies
		w.must(err)
		w.report(s, 2, like(w.build(good), good))
		w.must(db.Close())

		s = w.reporter(open())
		w.clock.Advance(leaseDuration) // before it begins, or the lease of its own first call were over at once
		w.background(s.Run)
		w.reaches(s, told)
		w.wantHistory("success: Passed, 1 step")
	})
}

// Of a burst of jobs people want to know of the whole first, and of what failed.
func TestTotalsAndFailuresAreToldFirst(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		tell := func(name string, state schedulerv1.Build_State) {
			w.clock.Advance(time.Millisecond)
			b := like(w.build(state), state)
			b.Id, b.Context = name, "forge/"+name
			w.report(s, 1, b)
		}
		for n := range 3 {
			tell(fmt.Sprintf("test/job-%d", n), good)
		}
		tell("staging/lint", running)
		tell("staging", running)
		tell("test/broken", bad)
		tell("test", bad)
		tell("push", good)
		claimed, err := s.store.claim(t.Context(), 20, w.clock.Now(), leaseUntil(w.clock.Now()), all)
		w.must(err)
		var order []string
		for _, one := range claimed {
			order = append(order, strings.TrimPrefix(one.context, "forge/"))
		}
		kittest.Want(t, strings.Join(order, " "), "test/broken test push test/job-0 test/job-1 test/job-2 staging staging/lint")
	})
}

func TestReplicasNeverTellOneTargetAtOnce(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		replicas := []*Service{w.reporter(open()), w.reporter(open())}
		if replicas[0].deps.DB.Dialect == sqldb.SQLite {
			replicas = replicas[:1] // one process, which takes over all leases when it starts
		}
		var mu sync.Mutex
		busy := map[string]bool{}
		w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			if busy[r.URL.Path] {
				t.Errorf("two calls at once to %s", r.URL.Path)
			}
			busy[r.URL.Path] = true
			mu.Unlock()
			w.sim.ServeHTTP(rw, r)
			mu.Lock()
			busy[r.URL.Path] = false
			mu.Unlock()
			return true
		})
		for _, s := range replicas {
			w.background(s.Run)
		}
		for version, state := range []schedulerv1.Build_State{queued, bad, queued, good} {
			for sha := range w.commits(10) {
				b := like(w.build(state), state)
				b.Sha = sha
				w.report(replicas[version%len(replicas)], int64(version+1), b)
			}
		}
		w.allRight(replicas[0], w.commits(10))
		// Each version is told once at most.
		if posts := posts(w); posts > 4*10 {
			t.Errorf("%d calls for 40 reports", posts)
		}
	})
}

func TestStormEndsWithEveryStateRight(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		random := rand.New(rand.NewPCG(1, 2)) // a fixed storm
		var mu sync.Mutex
		w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			lot := random.IntN(12)
			mu.Unlock()
			switch lot {
			case 0:
				rw.WriteHeader(http.StatusBadGateway)
			case 1:
				rw.Header().Set("Retry-After", "2")
				rw.WriteHeader(http.StatusForbidden)
			case 2: // GitHub did it, and its answer is lost
				w.sim.ServeHTTP(&lostResponse{}, r)
				panic(http.ErrAbortHandler)
			default:
				return false
			}
			return true
		})
		s := w.reporter(open())
		stop := w.background(s.Run)
		reports := []schedulerv1.Build_State{queued, running, good}
		commits := w.commits(20)
		for sha := range commits {
			for _, i := range []int{0, 1, 0, 2, 1} { // twice and out of order
				b := like(w.build(reports[i]), reports[i])
				b.Sha = sha
				w.report(s, int64(i+1), b)
			}
		}
		stop()
		s = w.reporter(open())
		w.background(s.Run)
		w.allRight(s, commits)
		for sha := range commits {
			history, err := w.sim.StatusHistory("octo", "shop", sha)
			w.must(err)
			for i := 1; i < len(history); i++ {
				if history[i-1].State != statePending && history[i].State == statePending {
					t.Errorf("%s went from %s back to pending", sha, history[i-1].State)
				}
			}
		}
	})
}

// lostResponse is a response that nobody reads.
type lostResponse struct{ header http.Header }

func (l *lostResponse) Header() http.Header {
	if l.header == nil {
		l.header = http.Header{}
	}
	return l.header
}
func (*lostResponse) Write(b []byte) (int, error) { return len(b), nil }
func (*lostResponse) WriteHeader(int)             {}

// commits returns the shas of n commits, the same on each call.
func (w *world) commits(n int) map[string]bool {
	w.t.Helper()
	found := map[string]bool{}
	for i := range n {
		branch := fmt.Sprintf("b%d", i)
		if sha, err := w.sim.Head("octo", "shop", branch); err == nil {
			found[sha] = true
			continue
		}
		w.must(w.sim.CreateBranch("octo", "shop", branch, "main"))
		sha, err := w.sim.Commit("octo", "shop", branch, githubsim.Commit{Files: map[string]string{branch: branch}})
		w.must(err)
		found[sha] = true
	}
	return found
}

// allRight moves the clock on until every target is told, and holds what GitHub
// shows against what has passed.
func (w *world) allRight(s *Service, commits map[string]bool) {
	w.t.Helper()
	kittest.Eventually(w.t, 3*patience, func() error {
		w.tick(s)
		for _, one := range w.targets(s) {
			if one.GetState() != told {
				return fmt.Errorf("target is %v", one)
			}
		}
		return nil
	})
	for sha := range commits {
		shows, err := w.sim.Statuses("octo", "shop", sha)
		w.must(err)
		if shows["forge/test"].State != "success" {
			w.t.Errorf("%s shows %v", sha, shows)
		}
	}
}

func posts(w *world) int {
	n := 0
	for _, call := range w.sim.Calls() {
		if strings.HasPrefix(call.Route, "POST /repos/{owner}/{repo}/statuses/") {
			n++
		}
	}
	return n
}
