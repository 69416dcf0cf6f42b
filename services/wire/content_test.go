package wire_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// What main's builds cache, a pull request's restore; what that caches, main's never
// see. Each cache has its line in the log.
func TestCachesAreRestoredAndCarryNoTrustUpward(t *testing.T) {
	eachDeployment(t, func(t *testing.T, d deployment) {
		const use = `  - if [ -e deps/made ]; then echo "found $(cat deps/made)"; fi; mkdir -p deps; echo "$FORGE_REF" >deps/made`
		w := newWorld(t, map[string]string{
			".forge.yml": lines(
				"image: busybox", `cache: [{key: "deps-${hash:lock}", restore: [deps-], paths: [deps]}]`,
				"execute:", use, "push:", "  branches: [main]", "  execute:", "  "+use,
			),
			"lock": "1\n",
		})
		w.deploy(t, d)
		logOf := func(sha, context string) string { return w.log(t, w.shows(t, sha, context, "success").TargetURL) }
		says := func(log string, wants ...string) {
			t.Helper()
			for _, want := range wants {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, log)
				}
			}
		}
		first := logOf(w.push(t, "main", files("a", "1\n")), "forge/push")
		says(first, "forge: cache deps-", ": nothing was saved for it yet", ": saved, 16 B in ")

		number, sha := w.propose(t, "change", githubsim.Commit{Message: "Change the lock", Files: map[string]string{"lock": "2\n"}})
		pull := logOf(sha, "forge/test")
		says(pull, ": restored from deps-", "found refs/heads/main\n", ": saved, ")
		again := logOf(w.push(t, "change", files("b", "1\n")), "forge/test")
		says(again, ": restored, ", "found refs/pull/")
		if strings.Contains(again, "saved") {
			t.Errorf("a cache that was found by its key was saved again:\n%s", again)
		}
		_ = number
		second := logOf(w.push(t, "main", files("lock", "2\n")), "forge/push")
		says(second, ": restored from deps-", "found refs/heads/main\n", ": saved, ")
	})
}

// What a job leaves, those that need it find in their workspace.
func TestArtifactsReachTheJobsThatNeedThem(t *testing.T) {
	w := newWorld(t, map[string]string{
		".forge.yml": lines(
			"image: busybox", "jobs:",
			"  make:", "    execute: ['mkdir -p dist/sub; echo made >dist/sub/program; chmod 755 dist/sub/program; echo log >run.log; exit $(cat code)']",
			"    artifacts: ['dist/**', {name: logs, paths: ['*.log'], keep: 2d}]",
			"  use:", "    needs: [make]", "    execute: ['cat dist/sub/program run.log; test -x dist/sub/program']",
		),
		"code": "0\n",
	})
	w.up(t)
	_, sha := w.propose(t, "good", githubsim.Commit{Message: "Good", Files: map[string]string{"a": "1\n"}})
	w.shows(t, sha, "forge/test", "success")
	used := w.log(t, w.shows(t, sha, "forge/test/use", "success").TargetURL)
	if !strings.Contains(used, "forge: artifact make: put into the workspace") || !strings.HasSuffix(used, "made\nlog\n") {
		t.Errorf("the log says:\n%s", used)
	}
	_, sha = w.propose(t, "bad", githubsim.Commit{Message: "Bad", Files: map[string]string{"code": "1\n"}})
	failed := w.log(t, w.shows(t, sha, "forge/test/make", "failure").TargetURL)
	if !strings.Contains(failed, "forge: artifact logs: kept, 1 files, 4 B") {
		t.Errorf("the log of the failure says:\n%s", failed)
	}
}

// Forge is killed while caches are saved and restored, again and again: builds pass,
// and none ever finds a cache that is not whole.
func TestSIGKILLInTheMiddleOfACache(t *testing.T) {
	const size = 24 << 20
	step := fmt.Sprintf("  - if [ -e deps/sum ]; then (cd deps && sha256sum -c sum); else echo none; fi; rm -rf deps; mkdir deps; head -c %d /dev/urandom >deps/noise; cd deps && sha256sum noise >sum", size)
	w := newWorld(t, map[string]string{
		".forge.yml": lines("image: busybox", `cache: [{key: "deps-${FORGE_SHA}", restore: [deps-], paths: [deps]}]`, "execute: ['true']", "push:", "  branches: [main]", "  execute:", "  "+step),
	})
	w.up(t)
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	forge, random := w.process("forge"), mathrand.New(mathrand.NewPCG(seed, 0))
	var restored int
	for n := range 6 {
		sha := w.push(t, "main", files("a", strconv.Itoa(n)))
		for range 2 {
			// Whatever is under way then is what is tested.
			timer := time.NewTimer(time.Duration(random.IntN(600)) * time.Millisecond)
			<-timer.C
			forge.kill()
			forge.begin(t)
		}
		w.awaitUp(t)
		log := w.log(t, w.shows(t, sha, "forge/push", "success").TargetURL)
		switch {
		case strings.Contains(log, "noise: OK\n"):
			restored++
		case !strings.Contains(log, "none\n"):
			t.Errorf("build %d says:\n%s", n, log)
		}
	}
	if restored == 0 {
		t.Error("no cache was ever restored")
	}
}

// A bucket that is away, or refuses, makes builds slower and never red.
func TestCachesWithoutABucket(t *testing.T) {
	bucket, url := kittest.S3(t)
	var refuses atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if refuses.Load() && strings.Contains(r.URL.Path, "/content/") { // else the source is lacking, too
			http.Error(rw, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
			return
		}
		bucket.Config.Handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	url = strings.ReplaceAll(url, bucket.URL, front.URL)
	w := newWorld(t, map[string]string{
		".forge.yml": lines("image: busybox", `cache: [{key: deps, paths: [deps]}]`, "execute: ['mkdir -p deps; date >deps/made']"), "a": "1",
	})
	w.patience = 2 * time.Minute // forgexec waits a while for a bucket that is away
	w.env = append(w.env, "FORGE_BLOB_URL="+url, "AWS_ACCESS_KEY_ID="+os.Getenv("AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	w.up(t)
	_, sha := w.propose(t, "change", githubsim.Commit{Message: "Change", Files: map[string]string{"a": "2\n"}})
	w.shows(t, sha, "forge/test", "success")
	found := w.push(t, "change", files("a", "3\n"))
	if log := w.log(t, w.shows(t, found, "forge/test", "success").TargetURL); !strings.Contains(log, "forge: cache deps: restored, ") {
		t.Errorf("the log says:\n%s", log)
	}
	refuses.Store(true)
	refused := w.push(t, "change", files("a", "4\n"))
	if log := w.log(t, w.shows(t, refused, "forge/test", "success").TargetURL); !strings.Contains(log, "forge: cache deps: not restored, the build goes on without: ") {
		t.Errorf("the log says:\n%s", log)
	}
}
