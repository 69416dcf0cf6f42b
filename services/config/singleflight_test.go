package config

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

func TestRunIsSharedAndOutlivesWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f singleflight[string, int]
		finish := make(chan struct{})
		runs := 0
		run := func(ctx context.Context) (int, error) {
			runs++
			select {
			case <-finish:
				return 42, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		first, leave := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := f.do(first, "k", run); !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			wait.Go(func() {
				if n, err := f.do(t.Context(), "k", run); n != 42 || err != nil {
					t.Errorf("got %d, error %v", n, err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(finish)
		wait.Wait()
		if runs != 1 || len(f.running) != 0 {
			t.Errorf("%d runs, %d still known", runs, len(f.running))
		}
	})
}

func TestLastToLeaveEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f singleflight[string, int]
		ctx, leave := context.WithCancel(t.Context())
		ended := false
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() {
				_, err := f.do(ctx, "k", func(ctx context.Context) (int, error) {
					<-ctx.Done()
					ended = true
					return 0, ctx.Err()
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		leave()
		wait.Wait()
		if !ended {
			t.Error("it goes on for nobody")
		}
		if n, err := f.do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil }); n != 7 || err != nil {
			t.Errorf("the next got %d, error %v", n, err)
		}
	})
}

func TestPanicInARunIsAnError(t *testing.T) {
	var f singleflight[string, int]
	_, err := f.do(t.Context(), "k", func(context.Context) (int, error) { panic("oops") })
	if err == nil || !strings.Contains(err.Error(), "panic: oops") {
		t.Errorf("got %v", err)
	}
}
