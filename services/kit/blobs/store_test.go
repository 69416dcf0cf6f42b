package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test on each kind of store.
func each(t *testing.T, test func(t *testing.T, open func(room string) *blobs.Store)) {
	opener := func(t *testing.T, url, dir string) func(string) *blobs.Store {
		return func(room string) *blobs.Store {
			t.Helper()
			s, err := blobs.Open(t.Context(), blobs.Config{URL: url, Dir: dir, Room: room})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
	}
	t.Run("files", func(t *testing.T) { test(t, opener(t, "", filepath.Join(t.TempDir(), "blobs"))) })
	t.Run("file URL", func(t *testing.T) { test(t, opener(t, "file://"+t.TempDir(), "")) })
	t.Run("s3", func(t *testing.T) {
		_, url := kittest.S3(t)
		test(t, opener(t, url, ""))
	})
	t.Run("s3 with a prefix", func(t *testing.T) {
		_, url := kittest.S3(t)
		test(t, opener(t, url+"&prefix=of/ours/", ""))
	})
}

func put(t *testing.T, s *blobs.Store, key, text string) {
	t.Helper()
	err := s.Put(t.Context(), key, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s *blobs.Store, key string, offset, length int64) string {
	t.Helper()
	r, err := s.Read(t.Context(), key, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func keys(t *testing.T, s *blobs.Store, prefix string) string {
	t.Helper()
	var all []string
	for b, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(b.Time).Abs() > time.Hour {
			t.Errorf("%s is of %v", b.Key, b.Time)
		}
		all = append(all, b.Key)
	}
	return strings.Join(all, " ")
}

func TestWhatIsPutIsReadListedAndRemoved(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *blobs.Store) {
		s := open("config")
		put(t, s, "sources/1-abc.tar.gz", "first")
		put(t, s, "sources/1-abc.tar.gz", "0123456789")
		put(t, s, "sources/2-def.tar.gz", "")
		put(t, s, "other", "x")
		for _, c := range []struct {
			offset, length int64
			want           string
		}{{0, -1, "0123456789"}, {3, -1, "3456789"}, {3, 4, "3456"}, {9, 1, "9"}} {
			if got := read(t, s, "sources/1-abc.tar.gz", c.offset, c.length); got != c.want {
				t.Errorf("%d bytes from %d: %q, want %q", c.length, c.offset, got, c.want)
			}
		}
		if got := keys(t, s, "sources/"); got != "sources/1-abc.tar.gz sources/2-def.tar.gz" {
			t.Errorf("listed %s", got)
		}
		if got := keys(t, open("scheduler"), ""); got != "" {
			t.Errorf("another room sees %s", got)
		}
		for range 2 {
			if err := s.Remove(t.Context(), "sources/1-abc.tar.gz"); err != nil {
				t.Error(err)
			}
		}
		if found, err := s.Has(t.Context(), "sources/1-abc.tar.gz"); found || err != nil {
			t.Errorf("it is there: %v, %v", found, err)
		}
		if found, err := s.Has(t.Context(), "other"); !found || err != nil {
			t.Errorf("another one is there: %v, %v", found, err)
		}
		if _, err := s.Read(t.Context(), "sources/1-abc.tar.gz", 0, -1); !fault.Is(err, fault.NotFound) {
			t.Errorf("read after it was removed: %v", err)
		}
	})
}

func TestWhatBreaksOffLeavesWhatWasThere(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *blobs.Store) {
		s := open("config")
		put(t, s, "kept", "as it was")
		brokeOff := errors.New("GitHub broke off")
		for _, key := range []string{"kept", "new"} {
			err := s.Put(t.Context(), key, func(w io.Writer) error {
				if _, err := w.Write(make([]byte, 20<<20)); err != nil {
					return err
				}
				return brokeOff
			})
			if !errors.Is(err, brokeOff) {
				t.Errorf("error %v, want the writer's own", err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Put(ctx, "new", func(w io.Writer) error {
			cancel()
			_, err := io.WriteString(w, "half")
			return err
		})
		if err == nil {
			t.Error("what was given up is kept")
		}
		if got := keys(t, s, ""); got != "kept" || read(t, s, "kept", 0, -1) != "as it was" {
			t.Errorf("there is %s", got)
		}
	})
}

func TestLargeBlobsArriveWhole(t *testing.T) {
	each(t, func(t *testing.T, open func(string) *blobs.Store) {
		s := open("config")
		text := bytes.Repeat([]byte("0123456789abcdef"), 20<<16) // in several parts
		put(t, s, "large", string(text))
		if got := read(t, s, "large", 0, -1); got != string(text) {
			t.Errorf("%d bytes, want %d", len(got), len(text))
		}
		if got := read(t, s, "large", 10<<20, 16); got != "0123456789abcdef" {
			t.Errorf("in the middle: %q", got)
		}
	})
}

func TestStoreThatCannotBeUsedIsRefused(t *testing.T) {
	server, url := kittest.S3(t)
	server.Close()
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"gs://bucket":             `unknown scheme "gs": use file:///path or s3://bucket`,
		"bucket":                  "this is no URL",
		"file://blobs":            "use file:///path",
		"file://":                 "use file:///path",
		"file://" + file:          "not a directory",
		"s3://forge?colour=green": "colour",
		"://":                     "missing protocol scheme",
		url:                       "cannot be read: ",
	} {
		_, err := blobs.Open(t.Context(), blobs.Config{URL: url, Room: "config"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "blob store "+url) {
			t.Errorf("%s: error %v, want %q", url, err, want)
		}
	}
}

func TestWhatComesAndGoesMeanwhileStopsNoList(t *testing.T) {
	s, err := blobs.Open(t.Context(), blobs.Config{Dir: t.TempDir(), Room: "config"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, "sources/stays", "x")
	stop := make(chan struct{})
	var coming sync.WaitGroup
	for n := range 4 {
		coming.Go(func() {
			key := fmt.Sprintf("sources/%d", n)
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := s.Put(t.Context(), key, func(io.Writer) error { return nil })
				if err := errors.Join(err, s.Remove(t.Context(), key)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 500 {
		if !strings.Contains(keys(t, s, "sources/"), "sources/stays") {
			t.Error("what stays is not listed")
		}
	}
	close(stop)
	coming.Wait()
}
