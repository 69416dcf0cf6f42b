package image_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/forge-ci/forge/services/scheduler/image"
)

// setTimes gives every file of a folder one time.
func setTimes(t *testing.T, dir string) {
	t.Helper()
	at := time.Unix(1_700_000_000, 0)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestALoadedImageStaysUntilItIsForgotten(t *testing.T) {
	r := newRig(t)
	base := r.registry.base(t, "base:1")
	files := workspace{"Dockerfile": "FROM " + base + "\nRUN echo loaded > /loaded\n"}
	loading := func(q *image.Request) { q.Load = r.builder.LoadName() }
	one, _ := r.build(t, r.request(loading), files)
	two, _ := r.build(t, r.request(loading), files)
	if one.Loaded == two.Loaded || one.Reference() != one.Loaded || one.Digest != two.Digest {
		t.Errorf("loaded %+v, then %+v", one, two)
	}
	left, err := r.builder.Leftovers(t.Context())
	if err != nil || len(left) != 2 {
		t.Errorf("in the engine: %q, %v", left, err)
	}
	if err := r.builder.Forget(t.Context(), one.Loaded); err != nil {
		t.Fatal(err)
	}
	if _, err := r.docker.ImageInspect(t.Context(), one.Loaded); !errdefs.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := r.docker.ImageInspect(t.Context(), two.Loaded); err != nil {
		t.Errorf("the other one is gone: %v", err)
	}
	for range 2 {
		if err := r.builder.Forget(t.Context(), two.Loaded); err != nil {
			t.Error(err)
		}
	}
	if err := r.builder.Forget(t.Context(), base); err == nil || !strings.Contains(err.Error(), "no Forge has built it") {
		t.Errorf("another's image is forgotten: %v", err)
	}
	other := r.builderOf(t, func(c *image.Config) { c.Instance = "another" + rand() })
	third, _ := r.build(t, r.request(loading), files)
	if left, err := other.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("another Forge's leftovers are %q, %v", left, err)
	}
	// Whoever has the name may: a Forge that is called otherwise since.
	if err := other.Forget(t.Context(), third.Loaded); err != nil {
		t.Error(err)
	}
}

// Of a large context only what is used crosses the stream.
func TestOnlyWhatIsUsedIsSent(t *testing.T) { onBoth(t, onlyWhatIsUsedIsSent) }

func onlyWhatIsUsedIsSent(t *testing.T, r *rig) {
	t.Helper()
	files := workspace{"Dockerfile": "FROM scratch\nCOPY used /\n", "used": strings.Repeat("x", 1<<20)}.on(t)
	large, err := os.Create(filepath.Join(files.root, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := large.Truncate(1 << 30); err != nil { // it has no blocks
		t.Fatal(err)
	}
	if err := large.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.builder.Build(t.Context(), r.request(), files, t.Output()); err != nil {
		t.Fatal(err)
	}
	if files.sent < 1<<20 || files.sent > 2<<20 {
		t.Errorf("%d bytes were sent", files.sent)
	}
}

func TestNamesOfForgesImagesAreKnownHoweverTheyAreWritten(t *testing.T) {
	for name, want := range map[string]bool{
		"forge-load/0/x:1": true, "docker.io/forge-load/0/x:1": true, "index.docker.io/forge-build/0/x": true, "forge-load/0/x@sha256:" + strings.Repeat("0", 64): true,
		"ghcr.io/forge-load/x": false, "acme/forge-load/x": false, "forge-load": false, "busybox:1": false, "no name": false,
	} {
		if got := image.IsForges(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
