package mirror_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// left are files of work that was not finished.
func (r *rig) left() (names []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if strings.HasPrefix(entry.Name(), "tmp_") || filepath.Base(filepath.Dir(path)) == "scratch" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

// A full disk is told, and is over once there is room: for that, mirrors go that nobody
// uses.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	var resize func(string)
	r.dir, resize = kittest.SmallDisk(t, "2m")
	r.open(1 << 30)
	sha := r.commit(map[string]string{"a": noise(4 << 20)})
	fails := func(when string) {
		t.Helper()
		if _, err := r.checkout(mirror.Want{SHA: sha}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "octo/cat: the disk of Forge's data directory is full") {
			t.Errorf("%s: %v", when, err)
		}
	}
	fails("in the middle of a fetch")
	resize("5m")
	fails("in the middle of a checkout")
	fails("in the middle of another")
	fetches := r.fetches.Load()
	if left := r.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	resize("10m")
	r.mustCheckout(mirror.Want{SHA: sha})
	if n := r.fetches.Load() - fetches; n != 0 {
		t.Errorf("%d more fetches of what was there", n)
	}

	other := r.remote()
	other.ID, other.Noun = 8, "octo/dog"
	resize("5m")
	if err := r.Checkout(t.Context(), other, mirror.Want{SHA: sha}, io.Discard); err == nil {
		t.Error("two mirrors fit where one does")
	}
	if _, err := os.Stat(filepath.Join(r.dir, "7.git")); err == nil {
		t.Error("the mirror that nobody uses stays")
	}
	resize("10m")
	if err := r.Checkout(t.Context(), other, mirror.Want{SHA: sha}, io.Discard); err != nil {
		t.Error(err)
	}
}
