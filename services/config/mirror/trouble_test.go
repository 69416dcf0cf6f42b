package mirror_test

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func noise(size int) string {
	all := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(all)
	return string(all)
}

// short writes so many bytes, then ends.
type short struct {
	http.ResponseWriter
	left int
	end  func()
}

func (s *short) Write(p []byte) (int, error) {
	if len(p) > s.left {
		_, _ = s.ResponseWriter.Write(p[:s.left])
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		s.end()
	}
	s.left -= len(p)
	return s.ResponseWriter.Write(p)
}

// ends has answers to such paths end after so many bytes.
func (r *rig) ends(suffix string, after int, end func(*http.Request)) {
	wrap := func(w http.ResponseWriter, request *http.Request) http.ResponseWriter {
		if !strings.Contains(request.URL.Path, suffix) {
			return w
		}
		return &short{w, after, func() { end(request) }}
	}
	r.wrap.Store(&wrap)
}

func breaksOff(*http.Request) { panic(http.ErrAbortHandler) }

func hangs(request *http.Request) {
	<-request.Context().Done()
	panic(http.ErrAbortHandler)
}

// A fetch that ends in the middle is the fault of GitHub, or of the way there, and
// says nothing of what is there already.
func TestGitHubThatBreaksOffCostsNoMirror(t *testing.T) {
	r := newRig(t)
	log := &kittest.Logbook{}
	open := func(patience time.Duration) {
		r.openWith(mirror.Config{MaxBytes: 1 << 30, Patience: patience, Log: slog.New(slog.NewTextHandler(log, nil))})
	}
	open(time.Minute)
	first := r.commit(map[string]string{"a": noise(4 << 20)})
	r.mustCheckout(mirror.Want{SHA: first, History: mirror.All})
	second := r.commit(map[string]string{"b": noise(2<<20) + "b"})
	for name, c := range map[string]struct {
		begin func()
		says  string
	}{
		"cut":   {func() { r.ends("/git-upload-pack", 1<<20, breaksOff) }, "octo/cat: GitHub broke off"},
		"hangs": {func() { r.ends("/git-upload-pack", 1<<20, hangs) }, "octo/cat: GitHub is too slow"},
		"502": {func() {
			down := func(w http.ResponseWriter, request *http.Request) bool {
				if !strings.HasSuffix(request.URL.Path, "/git-upload-pack") {
					return false
				}
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			r.refuse.Store(&down)
		}, "octo/cat: GitHub answers with an error"},
		"nobody is there": {func() { r.ends("/", 0, breaksOff) }, "octo/cat: GitHub broke off"},
	} {
		c.begin()
		if name == "hangs" {
			open(time.Second)
		}
		_, err := r.checkout(mirror.Want{SHA: second})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
		r.wrap.Store(nil)
		r.refuse.Store(nil)
		open(time.Minute)
	}
	fetches := r.fetches.Load()
	r.mustCheckout(mirror.Want{SHA: first})
	if n := r.fetches.Load() - fetches; n != 0 || strings.Contains(log.String(), "broken") {
		t.Errorf("the mirror was made anew: %d fetches\n%s", n, log)
	}
	if got := read(t, filepath.Join(r.mustCheckout(mirror.Want{SHA: second}), "b")); len(got) != 2<<20+1 {
		t.Errorf("%d bytes", len(got))
	}
}

// What Git LFS keeps is waited for as long as it comes, and asked for again where it
// does not.
func TestLFSThatHangsIsBrokenOff(t *testing.T) {
	r := newRig(t)
	r.openWith(mirror.Config{MaxBytes: 1 << 30, Patience: time.Second, Log: kittest.Log(t)})
	content := noise(1 << 20)
	oid, pointer := pointerTo(content)
	sha := r.commit(map[string]string{".gitattributes": "*.bin filter=lfs\n", "a.bin": pointer})
	r.lfs(map[string]string{oid: content})
	for name, c := range map[string]struct {
		suffix string
		end    func(*http.Request)
		says   string
	}{
		"no answer":           {"/objects/batch", hangs, "git LFS of octo/cat: "},
		"half of an object":   {"/media/", hangs, "GitHub broke off: it sends nothing for too long"},
		"the connection ends": {"/media/", breaksOff, "GitHub broke off"},
	} {
		r.ends(c.suffix, 20, c.end)
		if _, err := r.checkout(mirror.Want{SHA: sha, LFS: true}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", name, err, c.says)
		}
	}
	r.wrap.Store(nil)
	r.open(1 << 30)
	if got := read(t, filepath.Join(r.mustCheckout(mirror.Want{SHA: sha, LFS: true}), "a.bin")); got != content {
		t.Errorf("%d bytes", len(got))
	}
}
