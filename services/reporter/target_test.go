package reporter

import (
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

func half() float64 { return 0.5 }

func all(target) bool { return true }

// While somebody tells, what was told before is not what GitHub will show.
func TestReportThatLooksLikeTheLastToldStaysDueWhileAnotherIsTold(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	first, second := display{state: statePending, description: "Queued"}, display{state: "success"}
	one := target{version: 3, desired: first, published: first, publishedVersion: 1, due: now, lease: now.Add(leaseDuration)}
	one.schedule(now)
	if one.state == told || !one.due.Equal(now) {
		t.Errorf("not due any more: %+v", one)
	}
	one.succeed(2, second, now)
	if one.state == told || !one.due.Equal(now) || one.publishedVersion != 2 {
		t.Errorf("the newest is not due: %+v", one)
	}
}

func TestWhatGitHubShowsIsUnknownAfterAFailure(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	before := display{state: statePending, description: "Queued"}
	one := target{version: 2, desired: display{state: "success"}, published: before, publishedVersion: 1, due: now, lease: now.Add(leaseDuration)}
	one.fail(2, failure{state: failing, text: "cut off"}, now, half)
	one.version, one.desired = 3, before
	one.schedule(now)
	if one.state != failing || one.due.IsZero() {
		t.Errorf("taken for told: %+v", one)
	}
}

func TestNewsOutliveARefusalOfTheOld(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	one := target{version: 2, desired: display{state: "success"}, lease: now.Add(leaseDuration)}
	one.fail(1, failure{state: kept, text: "description is too long"}, now, half)
	if one.state == kept || !one.due.Equal(now) {
		t.Errorf("the newest is not tried: %+v", one)
	}
}

func TestLostLeaseSettlesNothing(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.report(s, 1, w.build(queued))
		claim := func() target {
			claimed, err := s.store.claim(t.Context(), 9, w.clock.Now(), leaseUntil(w.clock.Now()), all)
			w.must(err)
			if len(claimed) != 1 {
				t.Fatalf("claimed %d targets", len(claimed))
			}
			return claimed[0]
		}
		slow := claim()
		w.clock.Advance(leaseDuration)
		claim()
		settled, err := s.store.finishAttempt(t.Context(), slow, nil, func(one *target) { one.succeed(1, one.desired, w.clock.Now()) })
		w.must(err)
		if settled.state == told || settled.lease.IsZero() {
			t.Errorf("settled by one who had lost it: %+v", settled)
		}
	})
}

func TestTriesRunOutAfterADay(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := begin
	one := target{version: 1, desired: display{state: statePending}}
	for one.state != kept {
		one.fail(1, failure{state: failing, text: "GitHub had trouble"}, now, func() float64 { return 0.999 })
		if one.state != kept {
			now = one.due
		}
	}
	if tried := now.Sub(begin); tried < 24*time.Hour {
		t.Errorf("gave up after %v", tried)
	}
	if want := "gave up after 600 tries: GitHub had trouble"; one.err != want {
		t.Errorf("says %q, want %q", one.err, want)
	}
}
