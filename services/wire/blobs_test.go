package wire_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// Rooms that share a bucket keep in it what is large, and nothing of it on their
// own disks.
func TestLogsAndSourcesAreKeptInABucket(t *testing.T) {
	_, url := kittest.S3(t)
	w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: [cat file]"), "file": "from the main branch\n"})
	w.env = append(w.env, "FORGE_BLOB_URL="+url, "AWS_ACCESS_KEY_ID="+os.Getenv("AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	w.deploy(t, deployment{apart: true})
	_, head := w.propose(t, "change", files("file", "from the source\n"))
	passed := w.shows(t, head, "forge/test", "success")
	holds := func(room, folder string) {
		t.Helper()
		store, err := blobs.Open(t.Context(), blobs.Config{URL: url, Room: room})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		kittest.Eventually(t, patience, func() error {
			for blob, err := range store.List(t.Context(), "") {
				if err != nil || strings.Contains(blob.Key, folder) {
					return err
				}
			}
			return fs.ErrNotExist
		})
	}
	holds("config", "sources/")
	holds("scheduler", "logs/") // the log has moved
	if log := w.log(t, passed.TargetURL); !strings.HasSuffix(log, "from the source\n") {
		t.Errorf("the log says %q", log)
	}
	err := filepath.WalkDir(w.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "forge-data") && (strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".zst")) {
			t.Errorf("left on the disk: %s", path)
		}
		if errors.Is(err, fs.ErrNotExist) { // the rooms are at work
			return nil
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
