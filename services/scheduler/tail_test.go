package scheduler

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/logs"
)

// Fifty who follow a log from its beginning, while it is printed, read the store
// as often as one.
func TestFiftyFollowersReadTheStoreLikeOne(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var looks, reads atomic.Int64
		look, pages := r.service.logs.Tails.Look, r.service.logs.Tails.Pages
		r.service.logs.Tails.Look = func(ctx context.Context, id string, number int32) (logs.TailState, error) {
			looks.Add(1)
			return look(ctx, id, number)
		}
		r.service.logs.Tails.Pages = func(ctx context.Context, id string, number int32) logs.Page {
			return func(offset int64) ([]logs.LogChunk, error) {
				reads.Add(1)
				return pages(ctx, id, number)(offset)
			}
		}
		id := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(id, 1).Runner.Token)
		u.send(began(1, 1))
		var want strings.Builder
		sequence := int64(1)
		printMore := func() {
			sequence++
			text := fmt.Sprintf("line %d\n", sequence)
			want.WriteString(text)
			u.send(printed(sequence, 1, text))
			u.acked(sequence)
		}
		for range 20 { // read eight at a time
			printMore()
		}
		const followers, lines = 50, 100
		var following, all sync.WaitGroup
		got := make([]string, followers)
		for n := range followers {
			following.Add(1)
			stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id, Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				first, err := stream.Recv()
				following.Done()
				if err != nil {
					t.Error(err)
					return
				}
				got[n] = string(first.GetData()) + string(readLog(t, stream, int64(len(first.GetData()))))
			})
		}
		following.Wait()
		for range lines {
			printMore()
		}
		u.send(exited(sequence+1, 1, 1), over(sequence+2, schedulerv1.Ended_CAUSE_DONE))
		all.Wait()
		for n := range got {
			if got[n] != want.String() {
				t.Fatalf("follower %d got %d bytes of %d", n, len(got[n]), want.Len())
			}
		}
		// A look for who joins, and few for polls meanwhile. Who is not at the end yet reads
		// what was printed, and so may hold up what is printed then; the rest is told.
		if looks.Load() > followers+lines/2 || reads.Load() > lines/2 {
			t.Errorf("%d looks and %d reads for %d lines and %d followers", looks.Load(), reads.Load(), lines, followers)
		}
		if n := len(r.service.logs.Tails.Live); n > 0 {
			t.Errorf("%d tails are left", n)
		}
	})
}

func TestLogIsReadFromBeforeItsEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var text strings.Builder
		for n := range 100_000 {
			fmt.Fprintf(&text, "this is line %d of them\n", n)
		}
		whole := text.String()
		id := r.prints(1, []byte(whole+"no end of line"))
		whole += "no end of line"
		lastLines := func(n int) int64 {
			at := len(whole)
			for range n {
				at = strings.LastIndexByte(whole[:at-1], '\n') + 1
			}
			return int64(at)
		}
		size := int64(len(whole))
		check := func() {
			t.Helper()
			for _, c := range []struct {
				req  *schedulerv1.WatchLogRequest
				want int64 // where it begins
			}{
				{&schedulerv1.WatchLogRequest{TailBytes: 1}, size - 1},
				{&schedulerv1.WatchLogRequest{TailBytes: 300_000}, size - 300_000},
				{&schedulerv1.WatchLogRequest{TailBytes: 1 << 40}, 0},
				{&schedulerv1.WatchLogRequest{TailLines: 1}, lastLines(1)},
				{&schedulerv1.WatchLogRequest{TailLines: 3, Follow: true}, lastLines(3)},
				{&schedulerv1.WatchLogRequest{TailLines: 20_000}, lastLines(20_000)},
				{&schedulerv1.WatchLogRequest{TailLines: 1 << 30}, size - logs.MaxTail},
				{&schedulerv1.WatchLogRequest{TailLines: 3, TailBytes: 10}, size - 10},
				{&schedulerv1.WatchLogRequest{TailLines: 3, TailBytes: 1000}, lastLines(3)},
			} {
				c.req.BuildId = id
				stream, err := r.builds.WatchLog(t.Context(), c.req)
				if err != nil {
					t.Fatal(err)
				}
				if got := readLog(t, stream, c.want); string(got) != whole[c.want:] {
					t.Errorf("%v: %d bytes, want %d", c.req, len(got), size-c.want)
				}
			}
		}
		check()
		r.moved()
		check()
		empty := r.prints(2, nil)
		stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: empty, TailLines: 5, TailBytes: 5})
		if err != nil {
			t.Fatal(err)
		}
		if got := readLog(t, stream, 0); len(got) > 0 {
			t.Errorf("of nothing: %q", got)
		}
		for _, req := range []*schedulerv1.WatchLogRequest{{TailBytes: -1}, {TailLines: -1}, {TailLines: 1, Offset: 1}} {
			req.BuildId = id
			stream, err := r.builds.WatchLog(t.Context(), req)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v: %v", req, err)
			}
		}
	})
}
