package config

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const codeload = "/codeload/"

// blobsIn keeps blobs as files under dir.
func blobsIn(t testing.TB, dir string) *blobs.Store {
	t.Helper()
	store, err := blobs.Open(t.Context(), blobs.Config{Dir: dir, Room: "config"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func withBlobs(t testing.TB) func(*githubsim.Config, *Deps) {
	return func(_ *githubsim.Config, deps *Deps) { deps.Blobs = blobsIn(t, t.TempDir()) }
}

// noise does not compress, so that a tarball of it takes several chunks.
func noise(n int) string {
	state, text := uint32(1), make([]byte, n)
	for i := range text {
		state = state*1664525 + 1013904223
		text[i] = byte(state >> 24)
	}
	return string(text)
}

func files(t *testing.T, tarball []byte) map[string]string {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		found[name] = string(content)
	}
}

func TestSourceIsTheTreeOfTheCommit(t *testing.T) {
	for name, change := range map[string]func(*githubsim.Config, *Deps){
		"streamed": func(*githubsim.Config, *Deps) {},
		"cached":   withBlobs(t),
	} {
		w := newWorld(t, change)
		big := noise(300 << 10)
		sha := w.commit(githubsim.Commit{Files: map[string]string{"big": big}})
		w.commit(githubsim.Commit{Delete: []string{"big"}})
		var leaked atomic.Bool
		w.front.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, codeload) && r.Header.Get("Authorization") != "" {
				leaked.Store(true)
			}
			return false
		})
		tarball, err := w.source(sha)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := files(t, tarball); got["big"] != big || got[".forge.yml"] != goodFile {
			t.Errorf("%s: got %d files", name, len(got))
		}
		if leaked.Load() {
			t.Errorf("%s: the redirect took the token along", name)
		}
	}
}

func TestSourceIsDownloadedOnce(t *testing.T) {
	w := newWorld(t, withBlobs(t))
	sha := w.commit(githubsim.Commit{Files: map[string]string{"big": noise(200 << 10)}})
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if _, err := w.source(sha); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	w.front.answers("/", 500, "down")
	w.start()
	if _, err := w.source(sha); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if n := w.calls(codeload); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

func TestBrokenDownloadIsNeverServed(t *testing.T) {
	for name, change := range map[string]func(*githubsim.Config, *Deps){
		"streamed": func(*githubsim.Config, *Deps) {},
		"cached":   withBlobs(t),
	} {
		w := newWorld(t, change)
		sha := w.commit(githubsim.Commit{Files: map[string]string{"big": noise(500 << 10)}})
		w.front.cuts(codeload, 200<<10)
		_, err := w.source(sha)
		w.wantFault(err, fault.Unavailable, "GitHub broke off")
		if w.deps.Blobs != nil {
			for left, err := range w.deps.Blobs.List(t.Context(), "") {
				t.Errorf("%s: left %v, error %v", name, left, err)
			}
		}
		w.front.set(nil)
		tarball, err := w.source(sha)
		if err != nil || len(files(t, tarball)["big"]) != 500<<10 {
			t.Errorf("%s: asked again: %v", name, err)
		}
	}
}

func TestSourceRefusals(t *testing.T) {
	w := newWorld(t, withBlobs(t))
	w.hasToken()
	_, err := w.source(strings.Repeat("1", 40))
	w.wantFault(err, fault.NotFound, "source of acme/app at 1111")
	w.front.answers("/tarball/", 502, "bad gateway")
	_, err = w.source(w.head())
	w.wantFault(err, fault.Unavailable, "GitHub had trouble")
	w.front.answers("/tarball/", 403, "Resource not accessible by integration")
	_, err = w.source(w.head())
	w.wantFault(err, fault.Denied, "not accessible")
}

func TestSourceTooLargeIsRefused(t *testing.T) {
	source := &bounded{body: io.NopCloser(strings.NewReader("0123456789")), noun: "source of acme/app", left: 9}
	_, err := io.ReadAll(source)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "source of acme/app is larger than 2048 MiB") {
		t.Errorf("got %v", err)
	}
	source = &bounded{body: io.NopCloser(strings.NewReader("0123456789")), left: 10}
	if all, err := io.ReadAll(source); err != nil || len(all) != 10 {
		t.Errorf("got %d bytes, error %v", len(all), err)
	}
}

func (c *sourceCache) get(t *testing.T, n int64, text string) (downloaded bool) {
	t.Helper()
	source, err := c.open(t.Context(), archiveName(commitKey{n, "sha"}), func(context.Context) (io.ReadCloser, error) {
		downloaded = true
		return io.NopCloser(strings.NewReader(text)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if got, err := io.ReadAll(source); err != nil || string(got) != text {
		t.Errorf("got %q, error %v", got, err)
	}
	return downloaded
}

func TestSourcesUsedLongestAgoLeaveFirst(t *testing.T) {
	dir := t.TempDir()
	clock := kittest.NewClock(time.Now())
	newReplica := func() *sourceCache {
		cache, err := newSourceCache(blobsIn(t, dir), kittest.Log(t), 10, clock.Now)
		if err != nil {
			t.Fatal(err)
		}
		return cache
	}
	caches := []*sourceCache{newReplica(), newReplica()} // of two replicas
	folder := filepath.Join(dir, "config", "sources")
	turn := 0
	// Everything in the folder is an hour older than what happens now.
	get := func(n int64, text string) (downloaded bool) {
		clock.Advance(time.Hour)
		entries, _ := os.ReadDir(folder) // none at first
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil {
				t.Fatal(err)
			}
			older := info.ModTime().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(folder, entry.Name()), older, older); err != nil {
				t.Fatal(err)
			}
		}
		turn++
		return caches[turn%2].get(t, n, text)
	}
	get(1, "aaaa")
	get(2, "bbbb")
	get(1, "aaaa") // used again
	get(3, "cccc") // 2 leaves
	if get(1, "aaaa") || !get(2, "bbbb") {
		t.Error("the one used longest ago stayed")
	}
	if !get(4, "larger than the cache") || get(4, "larger than the cache") {
		t.Error("one that is larger than the cache is not kept while it is the last")
	}
	get(5, "e")
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 2 { // and when it was used
		t.Errorf("%v, error %v", entries, err)
	}
}

// A prune takes the longer the more there is in the cache.
func TestSourceCacheIsPrunedNowAndThen(t *testing.T) {
	dir := t.TempDir()
	clock := kittest.NewClock(time.Now())
	const most = 10 * pruneShare
	cache, err := newSourceCache(blobsIn(t, dir), kittest.Log(t), most, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "config", "sources")
	cache.get(t, 1, "the first") // and a prune
	for n, c := range []struct {
		name   string
		after  time.Duration
		text   string
		pruned bool
	}{
		{"a little", 0, "12345", false},
		{"a share in all", 0, "67890", true},
		{"a little again", pruneAfter - 1, "1", false},
		{"long after", 1, "2", true},
	} {
		clock.Advance(c.after)
		foreign := filepath.Join(folder, "2-sha"+archiveSuffix) // kept by another replica, long ago
		if err := os.WriteFile(foreign, make([]byte, most), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(foreign, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		cache.get(t, int64(n+3), c.text)
		if _, err := os.Stat(foreign); errors.Is(err, os.ErrNotExist) != c.pruned {
			t.Errorf("%s: pruned: %v, want %v", c.name, err != nil, c.pruned)
		}
	}
}

func TestUseIsRecordedNowAndThen(t *testing.T) {
	dir := t.TempDir()
	clock := kittest.NewClock(time.Now())
	cache, err := newSourceCache(blobsIn(t, dir), kittest.Log(t), 10, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(dir, "config", "sources", "1-sha"+archiveSuffix+usedSuffix)
	for _, c := range []struct {
		after    time.Duration
		recorded bool
	}{{0, true}, {recordEvery / 2, false}, {recordEvery / 2, true}} {
		clock.Advance(c.after)
		_ = os.Remove(used)
		cache.get(t, 1, "x")
		if _, err := os.Stat(used); (err == nil) != c.recorded {
			t.Errorf("recorded: %v, want %v", err == nil, c.recorded)
		}
	}
}

func TestWhatKilledDownloadsLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	clock := kittest.NewClock(time.Now())
	cache, err := newSourceCache(blobsIn(t, dir), kittest.Log(t), 10, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	cache.get(t, 1, "x")
	left := filepath.Join(dir, "config", "sources", "2-sha.tar.gz.123.tmp")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache.get(t, 3, "y") // it may be under way
	if _, err := os.Stat(left); err != nil {
		t.Error(err)
	}
	clock.Advance(strayAfter + time.Minute)
	cache.get(t, 4, "z")
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestFullDiskIsWorthAnotherTry(t *testing.T) {
	dir := t.TempDir()
	cache, err := newSourceCache(blobsIn(t, dir), kittest.Log(t), 10, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	// Where the folder should be made there is a file.
	if err := os.WriteFile(filepath.Join(dir, "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = cache.open(t.Context(), archiveName(commitKey{1, "sha"}), func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("text")), nil
	})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("error %v", err)
	}
}
