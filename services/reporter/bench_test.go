package reporter

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// atOnce has a world's reporters live in the present.
func atOnce(d *Deps) { d.Now, d.Log = time.Now, slog.New(slog.DiscardHandler) }

// BenchmarkTell is how long it takes from a build's end to GitHub's receipt, in
// round trips to the same GitHub: the same call by the same client, with nothing
// stored before it.
func BenchmarkTell(b *testing.B) {
	w := newWorld(b)
	w.adjust = atOnce
	s := w.reporter(sqlite(b))
	w.background(s.Run)
	received := make(chan time.Time, 1)
	w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
		w.sim.ServeHTTP(rw, r)
		received <- time.Now()
		return true
	})
	ready := w.build(good)
	ready.Context = "forge/ready"
	w.report(s, 1, ready)
	<-received
	var receipts, trips []time.Duration
	for i := range b.N {
		one := like(w.build(good), good)
		one.Context = fmt.Sprintf("forge/test-%d", i)
		begin := time.Now()
		w.report(s, 1, one)
		receipts = append(receipts, (<-received).Sub(begin))
		w.settled(s, one)

		direct := target{repository: w.repository, installationID: w.installation, sha: w.sha, context: one.GetContext(), desired: display{state: "success"}}
		begin = time.Now()
		client, err := s.client(s.tokens.sourceFor(direct), s.recorder(w.installation))
		w.must(err)
		_, err = publishStatus(b.Context(), client, direct)
		w.must(err)
		trips = append(trips, time.Since(begin))
		<-received
	}
	slices.Sort(receipts)
	slices.Sort(trips)
	p50, trip := receipts[len(receipts)/2], trips[len(trips)/2]
	b.ReportMetric(float64(p50.Microseconds()), "p50-µs")
	b.ReportMetric(float64(trip.Microseconds()), "round-trip-µs")
	b.ReportMetric(float64(p50)/float64(trip), "round-trips")
}

// settled waits until a build's status is known to be told: the next one is not
// to stand in its way.
func (w *world) settled(s *Service, b *schedulerv1.Build) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() error {
		if t, err := s.store.get(w.t.Context(), buildTarget(reporterv1.Target_KIND_STATUS, b)); err != nil || t.state != told {
			return fmt.Errorf("target is %+v, %w", t, err)
		}
		return nil
	})
}

// BenchmarkCalls counts the calls of a build that takes its time.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct {
		name, report, context string
		most                  int
	}{
		{"statuses", "statuses", "forge/test", 3},
		{"both", "both", "forge/test", 6},
		{"deploy", "statuses", "forge/deploy-staging", 7},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				w := newWorld(b)
				w.adjust = func(d *Deps) { d.Report = c.report }
				s := w.reporter(sqlite(b))
				before := len(w.sim.Calls())
				for i, state := range []schedulerv1.Build_State{queued, schedulerv1.Build_STATE_STARTING, running, good} {
					one := like(w.build(state), state)
					one.Context, one.Environment = c.context, environment(c.context)
					w.report(s, int64(i+1), one)
					w.publishAll(s)
				}
				calls := len(w.sim.Calls()) - before
				if calls > c.most {
					b.Errorf("%d calls, want %d at most", calls, c.most)
				}
				b.ReportMetric(float64(calls), "calls")
			}
		})
	}
}

// BenchmarkBurst has 600 builds queue up, run and end within a minute of a GitHub
// with its published limits, whose clock runs 120 times as fast, and compares
// when the last final state is told with the soonest that the limits allow.
func BenchmarkBurst(b *testing.B) {
	const builds, speed = 600, 120
	limits := githubsim.PublishedLimits()
	limits.Speed = speed
	for range b.N {
		w := newWorldWithin(b, limits)
		w.adjust = func(d *Deps) { atOnce(d); d.Spacing = time.Second / speed }
		s := w.reporter(sqlite(b))
		w.background(s.Run)
		begin := time.Now()
		for version, state := range []schedulerv1.Build_State{queued, running, good} {
			for i := range builds {
				one := like(w.build(state), state)
				one.Id, one.Context = fmt.Sprintf("b%d", i), fmt.Sprintf("forge/test-%d", i)
				w.report(s, int64(version+1), one)
			}
		}
		kittest.Eventually(b, 2*time.Minute, func() error {
			if shows, err := w.sim.Statuses("octo", "shop", w.sha); err != nil || right(shows) < builds {
				return fmt.Errorf("%d of %d right, %w", right(shows), builds, err)
			}
			return nil
		})
		took, least := time.Since(begin), w.sim.LeastTime(builds)
		b.ReportMetric(took.Seconds()*speed/60, "minutes")
		b.ReportMetric(float64(took)/float64(least), "least-times")
		b.ReportMetric(float64(len(w.sim.Calls()))/builds, "calls/build")
	}
}

func right(shows map[string]githubsim.Status) (n int) {
	for _, st := range shows {
		if st.State == "success" {
			n++
		}
	}
	return n
}
