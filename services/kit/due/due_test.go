package due

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rows is a table whose rows are all due; claimed rows are gone.
type rows struct {
	mu            sync.Mutex
	due           []int
	fail          error
	limits        []int           // that Claim was called with
	at            []time.Duration // since start
	start         time.Time
	done          []int
	working, most int
}

func newRows(due ...int) *rows { return &rows{due: due, start: time.Now()} }

func (r *rows) add(due ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = append(r.due, due...)
}

func (r *rows) claim(_ context.Context, limit int) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = append(r.limits, limit)
	r.at = append(r.at, time.Since(r.start))
	if r.fail != nil {
		return nil, r.fail
	}
	n := min(limit, len(r.due))
	claimed := r.due[:n]
	r.due = r.due[n:]
	return claimed, nil
}

func (r *rows) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.working++
	r.most = max(r.most, r.working)
}

func (r *rows) finish(row int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.working--
	r.done = append(r.done, row)
}

func (r *rows) sorted() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.done))
}

// during starts the loop in a bubble of fake time, and stops it after act.
func during(t *testing.T, loop *Loop[int], act func(stop func())) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- loop.Run(ctx) }()
	synctest.Wait()
	act(stop)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestAllDueRowsAreWorkedOnByAtMostTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1, 2, 3, 4, 5, 6, 7)
		loop := &Loop[int]{Name: "test", Workers: 3, Poll: time.Hour, Claim: table.claim}
		loop.Work = func(_ context.Context, row int) {
			table.begin()
			time.Sleep(time.Second) // of the bubble
			table.finish(row)
		}
		during(t, loop, func(func()) {
			time.Sleep(3500 * time.Millisecond)
			synctest.Wait()
			if got := table.sorted(); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6, 7}) || table.most != 3 {
				t.Errorf("done %v, %d at once; want all seven, 3 at once", got, table.most)
			}
		})
	})
}

func TestFreeWorkerTakesNewWorkAtOnceWhileAnotherIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1)
		release := make(chan struct{})
		loop := &Loop[int]{Workers: 2, Poll: time.Hour, Claim: table.claim}
		loop.Work = func(_ context.Context, row int) {
			table.begin()
			defer table.finish(row)
			if row == 1 {
				<-release
			}
		}
		during(t, loop, func(func()) {
			for row := 2; row <= 3; row++ {
				table.add(row)
				loop.Wake()
				synctest.Wait() // no time passes
			}
			if got := table.sorted(); !slices.Equal(got, []int{2, 3}) {
				t.Errorf("done %v while the first is busy, want 2 and 3", got)
			}
			close(release)
		})
	})
}

func TestWakeWhileAllAreBusyIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1)
		release := make(chan struct{})
		loop := &Loop[int]{Poll: time.Hour, Claim: table.claim}
		loop.Work = func(_ context.Context, row int) {
			table.begin()
			defer table.finish(row)
			<-release
		}
		during(t, loop, func(func()) {
			table.add(2)
			for range 10 {
				loop.Wake()
			}
			close(release)
			synctest.Wait()
			if got := table.sorted(); !slices.Equal(got, []int{1, 2}) {
				t.Errorf("done %v, want 1 and 2", got)
			}
		})
	})
}

func TestPollFindsWorkNobodyToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows()
		loop := &Loop[int]{Poll: time.Minute, Claim: table.claim}
		loop.Work = func(_ context.Context, row int) { table.begin(); table.finish(row) }
		during(t, loop, func(func()) {
			table.add(1)
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := table.sorted(); !slices.Equal(got, []int{1}) {
				t.Errorf("done %v, want 1", got)
			}
			if want := []time.Duration{0, time.Minute}; !slices.Equal(table.at[:2], want) {
				t.Errorf("asked at %v, want %v", table.at, want)
			}
		})
	})
}

func TestClaimErrorsAreLoggedAndRetriedWithBackoffThatWakeDoesNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1)
		table.fail = errors.New("no database")
		var log bytes.Buffer
		loop := &Loop[int]{Name: "relay", Poll: time.Hour, Claim: table.claim, Log: slog.New(slog.NewTextHandler(&log, nil))}
		loop.Work = func(_ context.Context, row int) { table.begin(); table.finish(row) }
		during(t, loop, func(func()) {
			for range 100 {
				loop.Wake()
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
			// 10 s of pauses from 50 ms doubling to 5 s, each less up to a half.
			if tries := len(table.at); tries < 7 || tries > 13 {
				t.Errorf("asked %d times in 10 s", tries)
			}
			table.mu.Lock()
			table.fail = nil
			table.mu.Unlock()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := table.sorted(); !slices.Equal(got, []int{1}) {
				t.Errorf("done %v after the database came back, want 1", got)
			}
		})
		if !strings.Contains(log.String(), `loop=relay`) || !strings.Contains(log.String(), `error="no database"`) {
			t.Errorf("log\n%s", log.String())
		}
	})
}

func TestPanickingWorkIsLoggedAndTheWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1, 2)
		var log bytes.Buffer
		loop := &Loop[int]{Name: "relay", Claim: table.claim, Log: slog.New(slog.NewTextHandler(&log, nil))}
		loop.Work = func(_ context.Context, row int) {
			if row == 1 {
				panic("out of cheese")
			}
			table.begin()
			table.finish(row)
		}
		during(t, loop, func(func()) {
			if got := table.sorted(); !slices.Equal(got, []int{2}) {
				t.Errorf("done %v, want 2", got)
			}
		})
		if !strings.Contains(log.String(), "out of cheese") || !strings.Contains(log.String(), "due_test.go") {
			t.Errorf("log without the panic and where it was\n%s", log.String())
		}
	})
}

func TestStopLetsWorkEndInPeaceAndClaimsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1, 2)
		loop := &Loop[int]{Drain: 10 * time.Second, Claim: table.claim}
		var workErr error
		loop.Work = func(ctx context.Context, row int) {
			table.begin()
			time.Sleep(9 * time.Second)
			workErr = ctx.Err()
			table.finish(row)
		}
		during(t, loop, func(stop func()) { stop() })
		if got := table.sorted(); !slices.Equal(got, []int{1}) || workErr != nil {
			t.Errorf("done %v with %v, want the first only, in peace", got, workErr)
		}
	})
}

func TestWorkThatDoesNotEndIsCancelledAfterTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1)
		loop := &Loop[int]{Drain: 2 * time.Second, Claim: table.claim}
		var cause error
		loop.Work = func(ctx context.Context, _ int) {
			<-ctx.Done()
			cause = context.Cause(ctx)
		}
		start := time.Now()
		during(t, loop, func(stop func()) { stop() })
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("stopped after %v, want 2s", took)
		}
		if !errors.Is(cause, ErrStopped) {
			t.Errorf("because %v", cause)
		}
	})
}

func TestBackoffDoublesUpToMostAndIsSpread(t *testing.T) {
	none := func() float64 { return 0 }
	all := func() float64 { return 1 }
	for _, c := range []struct {
		attempt int
		random  func() float64
		want    time.Duration
	}{
		{0, none, time.Second}, // an attempt counts from 1
		{1, none, time.Second},
		{2, none, 2 * time.Second},
		{4, none, 8 * time.Second},
		{4, all, 4 * time.Second},
		{7, none, time.Minute},
		{1 << 30, none, time.Minute},
		{1 << 30, all, 30 * time.Second},
	} {
		if got := Backoff(c.attempt, time.Second, time.Minute, c.random); got != c.want {
			t.Errorf("attempt %d: %v, want %v", c.attempt, got, c.want)
		}
	}
}

func TestLeaseIsRenewedAsLongAsWorkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1, 2)
		var renewed []time.Duration
		loop := &Loop[int]{
			Claim: table.claim,
			Renew: func(_ context.Context, row int) error {
				if row == 1 {
					t.Error("the lease of quick work was renewed")
				}
				renewed = append(renewed, time.Since(table.start))
				return errors.New("the database is away") // which ends nothing
			},
			Work: func(_ context.Context, row int) {
				table.begin()
				if row == 2 {
					time.Sleep(Lease)
				}
				table.finish(row)
			},
		}
		during(t, loop, func(func()) {
			time.Sleep(3 * Lease)
			synctest.Wait()
			if want := []time.Duration{renewEvery, 2 * renewEvery}; len(renewed) < 2 || !slices.Equal(renewed[:2], want) || len(renewed) > 3 {
				t.Errorf("renewed at %v, want %v", renewed, want)
			}
			if got := table.sorted(); !slices.Equal(got, []int{1, 2}) {
				t.Errorf("done: %v", got)
			}
		})
	})
}

func TestWorkThatIsNotToBeDoneAnyMoreEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newRows(1)
		var log bytes.Buffer
		var took time.Duration
		var cause error
		renewed := 0
		loop := &Loop[int]{
			Claim: table.claim, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Renew: func(context.Context, int) error {
				if renewed++; renewed > 1 {
					return fmt.Errorf("build 7: %w", ErrOver)
				}
				return nil
			},
			Work: func(ctx context.Context, row int) {
				table.begin()
				<-ctx.Done()
				took, cause = time.Since(table.start), context.Cause(ctx)
				time.Sleep(Lease) // it may take its time to end
				table.finish(row)
			},
		}
		during(t, loop, func(func()) {
			time.Sleep(2 * Lease)
			synctest.Wait()
			if took != 2*renewEvery || renewEvery > 5*time.Second || !errors.Is(cause, ErrOver) || renewed != 2 {
				t.Errorf("ended after %v because %v, renewed %d times", took, cause, renewed)
			}
		})
		if log.Len() > 0 {
			t.Errorf("log\n%s", log.String())
		}
	})
}
