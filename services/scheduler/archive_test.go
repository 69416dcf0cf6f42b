package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// longText takes several frames and chunks, part of which does not compress.
var longText = sync.OnceValue(func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 500<<10)
	for n := range noise {
		noise[n] = byte(random.Uint32())
	}
	return slices.Concat([]byte("hello\n"), noise, bytes.Repeat([]byte("0123456789 ten more\n"), 20<<10), []byte("the end\n"))
})

// prints has a build of a pull request print a text and fail.
func (r *rig) prints(number int32, text []byte) (id string) {
	r.t.Helper()
	id = r.built(opened(number, fmt.Sprintf("sha%d", number)))
	u := r.attach(r.spec(id, 1).Runner.Token)
	u.send(began(1, 1))
	sequence := int64(1)
	for part := range slices.Chunk(text, 60<<10) {
		sequence++
		u.send(printed(sequence, 1, string(part)))
	}
	u.send(exited(sequence+1, 1, 1), over(sequence+2, schedulerv1.Ended_CAUSE_DONE))
	u.acked(sequence + 2)
	return id
}

func (r *rig) count(query string, args ...any) (n int) {
	r.t.Helper()
	if err := r.service.store.DB.Read().QueryRowContext(r.t.Context(), query, args...).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// blobFiles are those there are.
func (r *rig) blobFiles() (files []string) {
	files, err := filepath.Glob(filepath.Join(r.blobs, "scheduler", "logs", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// moved waits until the logs of all that has ended are in blobs.
func (r *rig) moved() {
	r.t.Helper()
	r.clock.Advance(logs.ArchiveAfter + logs.ArchiveRetryMost)
	r.allMoved()
}

// allMoved waits until all logs that are due are where they belong.
func (r *rig) allMoved() {
	r.t.Helper()
	r.wake()
	kittest.Eventually(r.t, patience, func() error {
		if n := r.count(`SELECT count(*) FROM archives WHERE due_time < $1`, int64(store.Never)); n > 0 {
			return fmt.Errorf("%d logs are to be moved or removed", n)
		}
		return nil
	})
}

// readsAs holds what WatchLog sends against the text, from many places on.
func (r *rig) readsAs(id string, text []byte) {
	r.t.Helper()
	size := int64(len(text))
	for _, offset := range []int64{0, 1, 60 << 10, logs.FrameSize - 1, logs.FrameSize, 3*logs.FrameSize + 5, max(size-1, 0), size} {
		stream, err := r.builds.WatchLog(r.t.Context(), &schedulerv1.WatchLogRequest{BuildId: id, Offset: min(offset, size)})
		if err != nil {
			r.t.Fatal(err)
		}
		if got := readLog(r.t, stream, min(offset, size)); !bytes.Equal(got, text[min(offset, size):]) {
			r.t.Errorf("from %d: %d bytes, want %d, or other ones", offset, len(got), size-offset)
		}
	}
}

func TestLogOfWhatHasEndedMovesAndReadsTheSame(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		text := longText()
		id, short, silent := r.prints(1, text), r.prints(2, []byte("a word\n")), r.prints(3, nil)
		r.readsAs(id, text)
		r.shown("sha1", "forge/test", schedulerv1.Build_STATE_FAILED)
		output := r.reporter.shows("sha1", "forge/test").GetOutput()
		r.moved()
		if n, files := r.count(`SELECT count(*) FROM log_chunks`), r.blobFiles(); n > 0 || len(files) != 2 {
			t.Errorf("%d chunks are left, blobs %v", n, files)
		}
		r.readsAs(id, text)
		r.readsAs(short, []byte("a word\n"))
		r.readsAs(silent, nil)
		if again, err := r.service.outbox.LastOutput(t.Context(), r.build(id)); err != nil || !bytes.Equal(again, output) || len(again) == 0 {
			t.Errorf("%d bytes of last output, %v; before %d", len(again), err, len(output))
		}
		// zstd can unpack the blob without us.
		for _, file := range r.blobFiles() {
			packed, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			decoder, err := zstd.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			var whole bytes.Buffer
			_, err = decoder.WriteTo(&whole)
			decoder.Close()
			if err != nil || !bytes.Equal(whole.Bytes(), text) && whole.String() != "a word\n" {
				t.Errorf("%s unpacks to %d bytes, %v", file, whole.Len(), err)
			}
		}
		r.stop()
		r.start()
		r.readsAs(id, text)
	})
}

// A try can end at any point. The next goes on, the log is read all the while,
// and what is left behind is removed in the end.
func TestMovingALogSurvivesAKillAnywhere(t *testing.T) {
	text := longText()
	moving := func(t *testing.T, r *rig, id string) logs.Archive {
		t.Helper()
		c := logs.Archive{BuildID: id, Attempt: 1}
		if err := r.service.logs.WriteArchive(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	commit := func(t *testing.T, r *rig, c logs.Archive) (ours bool) {
		t.Helper()
		err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
			ours, err = logs.ArchiveMoved(ctx, tx, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ours
	}
	for name, kill := range map[string]func(t *testing.T, r *rig, id string) (strays int){
		"half a blob is written": func(t *testing.T, r *rig, _ string) int {
			left := filepath.Join(r.blobs, "scheduler", "logs", "x.zst.123.tmp")
			if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o700), os.WriteFile(left, []byte("half"), 0o600)); err != nil {
				t.Fatal(err)
			}
			return 1
		},
		"the blob is written": func(t *testing.T, r *rig, id string) int {
			moving(t, r, id)
			return 1
		},
		"the row tells of it": func(t *testing.T, r *rig, id string) int {
			commit(t, r, moving(t, r, id))
			return 0
		},
		"some chunks are removed": func(t *testing.T, r *rig, id string) int {
			commit(t, r, moving(t, r, id))
			err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				return tx.Exec(ctx, `DELETE FROM log_chunks WHERE build_id = $1 AND position < $2`, id, 600<<10)
			})
			if err != nil {
				t.Fatal(err)
			}
			return 0
		},
		"another was faster": func(t *testing.T, r *rig, id string) int {
			slow := moving(t, r, id)
			commit(t, r, moving(t, r, id))
			if commit(t, r, slow) {
				t.Error("the second took the row over")
			}
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				id := r.prints(1, text)
				strays := kill(t, r, id)
				r.readsAs(id, text)
				r.stop()
				r.clock.Advance(logs.ArchiveAfter + logs.ArchiveRetryMost) // while nobody has a lease that would end by it
				r.start()
				r.allMoved()
				r.readsAs(id, text)
				if n, files := r.count(`SELECT count(*) FROM log_chunks`), r.blobFiles(); n > 0 || len(files) != 1+strays {
					t.Fatalf("%d chunks are left, blobs %v", n, files)
				}
				r.removesStrays(1)
				r.readsAs(id, text)
			})
		})
	}
}

// removesStrays leaves so many blobs, once they are a day old.
func (r *rig) removesStrays(want int) {
	r.t.Helper()
	age := func(by time.Duration) {
		for _, file := range r.blobFiles() {
			if err := os.Chtimes(file, time.Time{}, r.clock.Now().Add(-by)); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := r.service.logs.RemoveStrays(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
	before := len(r.blobFiles())
	age(logs.StrayAfter - time.Minute)
	if n := len(r.blobFiles()); n != before {
		r.t.Errorf("%d of %d blobs are left while somebody may be writing them", n, before)
	}
	age(logs.StrayAfter)
	if n := len(r.blobFiles()); n != want {
		r.t.Errorf("%d blobs are left, want %d", n, want)
	}
}

func TestOldLogsLeaveTheBlobStore(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Retention.Logs, r.deps.Retention.Builds = time.Hour, 10*time.Hour
		r.start()
		before := r.prints(1, []byte("moved before\n"))
		r.moved()
		after := r.prints(2, []byte("not moved yet\n"))
		r.clock.Advance(time.Hour)
		r.pruned()
		r.moved()
		if files := r.blobFiles(); len(files) > 0 {
			t.Errorf("left are %v", files)
		}
		for _, id := range []string{before, after} {
			stream, err := r.builds.WatchLog(t.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.NotFound {
				t.Errorf("the log of %s: %v", id, err)
			}
		}
		if n := r.count(`SELECT count(*) FROM archives`) + r.count(`SELECT count(*) FROM log_chunks`); n > 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestLogThatBecomesOldWhileItMovesLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.prints(1, []byte("too late\n"))
		c := logs.Archive{BuildID: id, Attempt: 1}
		if err := r.service.logs.WriteArchive(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
		err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error { return removeLog(ctx, t, id) })
		if err != nil {
			t.Fatal(err)
		}
		err = r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			if ours, err := logs.ArchiveMoved(ctx, tx, c); ours || err != nil {
				t.Errorf("moved: %v, %v", ours, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.moved()
		r.removesStrays(0)
	})
}

func TestLogStaysWhereItIsWhileTheBlobStoreIsAway(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		away := filepath.Join(r.blobs, "scheduler")
		if err := os.WriteFile(away, nil, 0o600); err != nil { // where the folder should be made
			t.Fatal(err)
		}
		id := r.prints(1, longText())
		r.clock.Advance(logs.ArchiveAfter)
		r.wake()
		kittest.Eventually(t, patience, func() error {
			if r.count(`SELECT count(*) FROM archives WHERE tries > 0`) == 0 {
				return errors.New("nobody has tried yet")
			}
			return nil
		})
		r.readsAs(id, longText())
		if err := os.Remove(away); err != nil {
			t.Fatal(err)
		}
		r.moved()
		r.readsAs(id, longText())
		if len(r.blobFiles()) != 1 {
			t.Errorf("blobs: %v", r.blobFiles())
		}
	})
}

func TestBrokenIndexIsAnError(t *testing.T) {
	for text, want := range map[string]string{"": "empty", "\x00\x01": "empty", "\x80": "broken", "\x05\x01\x80": "broken"} {
		if _, err := logs.ParseFrames([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%x: %v, want %s", text, err, want)
		}
	}
}
