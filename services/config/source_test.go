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
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const codeload = "/codeload/"

func withDataDir(t testing.TB) func(*githubsim.Config, *Deps) {
	return func(_ *githubsim.Config, deps *Deps) { deps.DataDir = t.TempDir() }
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
		"cached":   withDataDir(t),
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

func TestSourceIsDownloadedOnceAndServedFromDisk(t *testing.T) {
	w := newWorld(t, withDataDir(t))
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
		"cached":   withDataDir(t),
	} {
		w := newWorld(t, change)
		sha := w.commit(githubsim.Commit{Files: map[string]string{"big": noise(500 << 10)}})
		w.front.cuts(codeload, 200<<10)
		_, err := w.source(sha)
		w.wantFault(err, fault.Unavailable, "GitHub broke off")
		if w.deps.DataDir != "" {
			if left, err := os.ReadDir(filepath.Join(w.deps.DataDir, "sources")); err != nil || len(left) != 0 {
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
	w := newWorld(t, withDataDir(t))
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
	source, err := c.open(t.Context(), commit{n, "sha"}, func(context.Context) (io.ReadCloser, error) {
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
	clock := kittest.NewClock(time.Now())
	cache, err := newSourceCache(t.TempDir(), 10, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	get := func(n int64, text string) bool {
		clock.Advance(time.Minute)
		return cache.get(t, n, text)
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
	if entries, err := os.ReadDir(cache.folder); err != nil || len(entries) != 1 {
		t.Errorf("%d files, error %v", len(entries), err)
	}
}

func TestUnfinishedDownloadsAreRemovedAtStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sources"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"download-1", "1-sha.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, "sources", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := newSourceCache(dir, 10, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cache.folder); err != nil || len(entries) != 1 || cache.get(t, 1, "x") {
		t.Errorf("%d files, error %v", len(entries), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newSourceCache(filepath.Join(dir, "file"), 10, time.Now); err == nil || !strings.Contains(err.Error(), "source cache") {
		t.Errorf("a data directory that is a file: %v", err)
	}
}
