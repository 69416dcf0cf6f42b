package scheduler

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func eachKeeping(t *testing.T, test func(t *testing.T, r keeping)) {
	t.Helper()
	eachStopped(t, func(t *testing.T, r *rig) { test(t, startKeeping(r)) })
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

// A cache is found by its key, or the newest by the beginning of it, and saved once.
func TestCachesAreFoundByKeyAndByPrefix(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		main, one, two, three := r.pushed("refs/heads/main", "aaa"), noise(1, 3<<20), noise(2, 300), noise(3, 1000)
		if _, _, err := main.restores("go-1", "go-"); status.Code(err) != codes.NotFound {
			t.Fatalf("error %v before anything was saved", err)
		}
		for key, data := range map[string][]byte{"go-1": one, "node-1": three} {
			if sent, err := main.saves(key, data); err != nil || sent != len(data) {
				t.Fatalf("saved %d of %d bytes, error %v", sent, len(data), err)
			}
		}
		r.clock.Advance(time.Minute)
		if _, err := main.saves("go-2", two); err != nil {
			t.Fatal(err)
		}
		_, err := main.saves("go-1", two)
		wantCode(t, err, codes.AlreadyExists)
		r.clock.Advance(time.Minute)
		if sent, err := main.saves("go-3", one); err != nil || sent != 0 {
			t.Errorf("%d bytes were sent that were there, error %v", sent, err)
		}
		pull := r.pulled(1, "bbb")
		for _, c := range []struct {
			key     string
			restore []string
			found   string
			data    []byte
		}{
			{"go-1", nil, "go-1", one},
			{"go-9", []string{"go-"}, "go-3", one},
			{"go-9", []string{"go-2"}, "go-2", two},
			{"go-9", []string{"rust-", "node-", "go-"}, "node-1", three},
			{"go", nil, "", nil},
			{"go-9", []string{"", "%", "_", "GO-"}, "", nil},
		} {
			found, data, err := pull.restores(c.key, c.restore...)
			if found != c.found || !bytes.Equal(data, c.data) || (c.found == "") != (status.Code(err) == codes.NotFound) {
				t.Errorf("%s, %q: found %q, %d bytes, error %v; want %q", c.key, c.restore, found, len(data), err, c.found)
			}
		}
	})
}

// What lies below a tier does not exist for it: not under the same key, not by a
// prefix, and not as bytes that need not be sent.
func TestCachesOfOthersDoNotExist(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		evil := noise(66, 200_000)
		for _, writer := range []*keeper{
			r.forked(1, "aaa"), r.pulled(2, "bbb"), r.pushed("refs/heads/feature", "ccc"),
			r.keeper(r.built(mergedInto(9, "main", "mmm"))),
		} {
			if _, err := writer.saves("key", evil); err != nil {
				t.Fatal(err)
			}
		}
		for _, reader := range []*keeper{ // what main has saved, all would read
			r.forked(3, "ddd"), r.pulled(4, "eee"), r.pushed("refs/heads/other", "fff"), r.pushed("refs/heads/main", "ggg"),
		} {
			_, _, err := reader.restores("key", "k", "key")
			wantCode(t, err, codes.NotFound)
			if sent, err := reader.saves("other", evil); sent != len(evil) || err != nil {
				t.Errorf("%d of %d bytes were sent, error %v", sent, len(evil), err)
			}
		}
	})
}

// A token is of one attempt, for as long as it runs, in the hands of its runner.
func TestContentIsOfTheAttemptThatRuns(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		main := r.pushed("refs/heads/main", "aaa")
		thief := *main
		thief.runner = "runner-2"
		stranger := *main
		stranger.token = "0123"
		for _, k := range []*keeper{&thief, &stranger} {
			_, err := k.saves("key", noise(1, 100))
			_, _, read := k.restores("key")
			if status.Code(err) == codes.OK || status.Code(read) == codes.NotFound {
				t.Errorf("somebody else was served: %v, %v", err, read)
			}
		}
		if _, err := main.saves("key", noise(1, 100)); err != nil {
			t.Fatal(err)
		}
		pull := r.pulled(1, "bbb")
		id := r.all()[0].GetId()
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		u := r.reattach(pull.token)
		u.send(over(1, schedulerv1.Ended_CAUSE_CANCELLED))
		u.acked(1)
		_, err := pull.saves("late", noise(1, 100))
		wantCode(t, err, codes.FailedPrecondition)
		_, _, err = pull.restores("key")
		wantCode(t, err, codes.FailedPrecondition)
	})
}

// contentFiles are the blobs of caches and artifacts, the largest first.
func (r keeping) contentFiles() (files []string) {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.blobs, "scheduler", "content", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

func change(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is changed, cut short or gone in the bucket is found: it costs a cache, and
// nobody gets a wrong byte or builds upon it.
func TestWhatIsBrokenInTheBucketIsFoundAndRemoved(t *testing.T) {
	large, small := func(size int64) bool { return size > 50_000 }, func(size int64) bool { return size <= 50_000 }
	for name, c := range map[string]struct {
		which func(size int64) bool // chunks, or the manifest
		harm  func(*testing.T, string)
	}{
		"a changed chunk":       {large, change},
		"a changed manifest":    {small, change},
		"chunks cut short":      {large, func(t *testing.T, file string) { t.Helper(); wantNil(t, os.Truncate(file, 100)) }},
		"no chunks":             {large, func(t *testing.T, file string) { t.Helper(); wantNil(t, os.Remove(file)) }},
		"no manifest":           {small, func(t *testing.T, file string) { t.Helper(); wantNil(t, os.Remove(file)) }},
		"another cache's bytes": {large, func(t *testing.T, file string) { t.Helper(); wantNil(t, os.WriteFile(file, noise(9, 100_000), 0o600)) }},
		"an empty manifest":     {small, func(t *testing.T, file string) { t.Helper(); wantNil(t, os.Truncate(file, 0)) }},
		"chunks with bytes added": {large, func(t *testing.T, file string) {
			t.Helper()
			wantNil(t, os.WriteFile(file, make([]byte, 200_000), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := startKeeping(sqliteRig(t))
			main, data := r.pushed("refs/heads/main", "aaa"), noise(1, 100_000)
			if _, err := main.saves("key", data); err != nil {
				t.Fatal(err)
			}
			for _, file := range r.contentFiles() {
				if info, err := os.Stat(file); err == nil && c.which(info.Size()) {
					c.harm(t, file)
				}
			}
			_, got, err := main.restores("key")
			if errors.Is(err, chunks.ErrBroken) {
				_, got, err = main.get(&schedulerv1.GetContentRequest{Verify: true, Content: &schedulerv1.GetContentRequest_Cache{Cache: cacheKey("key")}})
			}
			wantCode(t, err, codes.NotFound)
			if len(got) > 0 {
				t.Errorf("%d bytes were believed", len(got))
			}
			if sent, err := main.saves("key", data); err != nil || sent != len(data) {
				t.Errorf("saved anew: %d of %d bytes sent, error %v", sent, len(data), err)
			}
			if _, got, err := main.restores("key"); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
		})
	}
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Where there is too much, those of the least trusted go first: nobody drives out what
// main has saved.
func TestTooManyCachesDriveOutTheLeastTrusted(t *testing.T) {
	eachStopped(t, func(t *testing.T, stopped *rig) {
		stopped.deps.Contents = content.Limits{Cache: 1 << 20}
		r := startKeeping(stopped)
		main, fork := r.pushed("refs/heads/main", "aaa"), r.forked(1, "bbb")
		pull := r.pulled(2, "ccc")
		if _, err := main.saves("old", noise(1, 300_000)); err != nil {
			t.Fatal(err)
		}
		if _, err := pull.saves("mine", noise(2, 300_000)); err != nil {
			t.Fatal(err)
		}
		for n := range byte(10) { // the fork's flood
			r.clock.Advance(time.Second)
			if _, err := fork.saves(string('a'+rune(n)), noise(10+n, 300_000)); err != nil {
				t.Fatal(err)
			}
		}
		for name, there := range map[string]*keeper{"old": main, "mine": pull, "j": fork} {
			if _, _, err := there.restores(name); err != nil {
				t.Errorf("%s was driven out: %v", name, err)
			}
		}
		if _, _, err := fork.restores("a"); status.Code(err) != codes.NotFound {
			t.Errorf("the fork's oldest is there: %v", err)
		}
		_, err := main.saves("too large", noise(3, 1<<20+1))
		wantCode(t, err, codes.ResourceExhausted)
	})
}

// A blob stays as long as anything uses it, and an hour more for those who read it.
func TestBlobsGoOnceNothingUsesThem(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		main, data := r.pushed("refs/heads/main", "aaa"), noise(1, 200_000)
		for _, key := range []string{"one", "two"} {
			if _, err := main.saves(key, data); err != nil {
				t.Fatal(err)
			}
		}
		// A save that was broken off leaves a blob that nothing uses, and a process that
		// was killed the part it had written.
		if err := main.breaksOff("broken off"); err != nil {
			t.Fatal(err)
		}
		stray := filepath.Join(r.blobs, "scheduler", "content", "0123.tmp")
		wantNil(t, os.WriteFile(stray, []byte("part"), 0o600))
		wantNil(t, os.Chtimes(stray, noon.Add(-content.StrayAfter), noon.Add(-content.StrayAfter)))
		contents := r.service.contents
		deletes := func(prefix string) {
			t.Helper()
			answer, err := contents.DeleteCaches(t.Context(), &schedulerv1.DeleteCachesRequest{Repository: "Acme/shop", KeyPrefix: prefix})
			if err != nil || answer.GetCount() != 1 {
				t.Fatalf("deleted %v, error %v", answer, err)
			}
		}
		sweeps := func(after time.Duration) {
			t.Helper()
			r.clock.Advance(after)
			wantNil(t, contents.Sweep(t.Context()))
		}
		deletes("one")
		sweeps(2 * content.FreeFor)
		if _, got, err := main.restores("two"); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("the sweep took what is in use: %d bytes, error %v", len(got), err)
		}
		deletes("two")
		sweeps(content.FreeFor / 2)
		if files := r.contentFiles(); len(files) < 2 {
			t.Errorf("a reader would have lost its blobs: %q are left", files)
		}
		sweeps(content.FreeFor)
		wantNil(t, contents.RemoveStrays(t.Context()))
		if files := r.contentFiles(); len(files) > 0 || r.count(`SELECT count(*) FROM packs`)+r.count(`SELECT count(*) FROM pack_uses`) > 0 {
			t.Errorf("%q are left", files)
		}
		_, err := contents.DeleteCaches(t.Context(), &schedulerv1.DeleteCachesRequest{Repository: "Acme/shop"})
		wantKind(t, err)
	})
}

func wantKind(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("there is nothing, and nothing was said")
	}
}

// breaksOff begins a save of two chunks, and ends after the first.
func (k *keeper) breaksOff(key string) error {
	k.t.Helper()
	ctx, leave := context.WithCancel(withToken(k))
	defer leave()
	stream, err := k.runners.PutContent(ctx)
	if err != nil {
		return err
	}
	begin := &schedulerv1.PutContentRequest_Begin{RunnerId: k.runner, Size: 20, Chunks: 2, Content: &schedulerv1.PutContentRequest_Begin_Cache{Cache: cacheKey(key)}}
	manifest := &schedulerv1.Manifest{Chunks: []*schedulerv1.Chunk{{Digest: make([]byte, 32), Size: 10}, {Digest: bytes.Repeat([]byte{1}, 32), Size: 10}}}
	for _, message := range []*schedulerv1.PutContentRequest{
		{Message: &schedulerv1.PutContentRequest_Begin_{Begin: begin}},
		{Message: &schedulerv1.PutContentRequest_Manifest{Manifest: manifest}},
		{Message: &schedulerv1.PutContentRequest_Data{Data: []byte("not much")}},
	} {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil { // the list of what is lacking
		return err
	}
	if _, err := stream.Recv(); err == nil {
		return errors.New("a save that was broken off was committed")
	}
	return nil
}

// Of two that save one key at once, one does, and what is found is whole.
func TestOneKeyIsSavedByOne(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		savers := []*keeper{r.pushed("refs/heads/main", "aaa"), r.pushed("refs/heads/main", "bbb")}
		data := [][]byte{noise(1, 300_000), noise(2, 300_000)}
		errs := make([]error, len(savers))
		var saving sync.WaitGroup
		for n, k := range savers {
			saving.Go(func() { _, errs[n] = k.saves("key", data[n]) })
		}
		saving.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		wantCode(t, errs[winner], codes.OK)
		wantCode(t, errs[1-winner], codes.AlreadyExists)
		if _, got, err := savers[0].restores("key"); err != nil || !bytes.Equal(got, data[winner]) {
			t.Errorf("%d bytes, error %v", len(got), err)
		}
	})
}

// A sweep that was killed between its steps takes nothing that is in use, and what it
// has begun to remove nobody begins to use.
func TestASweepThatWasKilledGoesOn(t *testing.T) {
	eachKeeping(t, func(t *testing.T, r keeping) {
		main, data := r.pushed("refs/heads/main", "aaa"), noise(1, 200_000)
		if _, err := main.saves("one", data); err != nil {
			t.Fatal(err)
		}
		// Its first step is done: the blobs are marked.
		wantNil(t, r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(tx.Exec(ctx, `DELETE FROM pack_uses`), tx.Exec(ctx, `UPDATE packs SET dying = $1, free_time = 1`, true))
		}))
		if sent, err := main.saves("two", data); err != nil || sent != len(data) {
			t.Errorf("%d of %d bytes were sent, error %v", sent, len(data), err)
		}
		wantNil(t, r.service.contents.Sweep(t.Context()))
		if n := r.count(`SELECT count(*) FROM packs WHERE dying`); n > 0 {
			t.Errorf("%d marked blobs are left", n)
		}
		if _, got, err := main.restores("two"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, error %v", len(got), err)
		}
		_, _, err := main.restores("one")
		wantCode(t, err, codes.NotFound)
	})
}
