package githubsim_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/githubsim"
)

func TestFetchesGoWrongAsAsked(t *testing.T) {
	for name, test := range map[string]struct {
		wrong githubsim.Misbehaviour
		says  string // by git
	}{
		"502 at first":        {githubsim.Misbehaviour{Route: "info/refs", Status: 502}, "502"},
		"502 in the middle":   {githubsim.Misbehaviour{Route: "git-upload-pack", Status: 502}, "502"},
		"401":                 {githubsim.Misbehaviour{Route: "info/refs", Status: 401}, "Authentication failed"},
		"429":                 {githubsim.Misbehaviour{Route: "info/refs", Status: 429, RetryAfter: time.Second}, "429"},
		"no answer":           {githubsim.Misbehaviour{Route: "git-upload-pack", Cut: true}, "Empty reply"},
		"half an answer":      {githubsim.Misbehaviour{Route: "git-upload-pack", Half: true}, "fatal:"},
		"cut within the refs": {githubsim.Misbehaviour{Route: "info/refs", CutAfter: 20}, "fatal:"},
		"cut within the pack": {githubsim.Misbehaviour{Route: "git-upload-pack", CutAfter: 200_000}, "fatal:"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.commit("main", map[string]string{"large": rand.Text() + strings.Repeat(rand.Text(), 20_000)})
			incompressible := make([]byte, 1<<20)
			_, _ = rand.Read(incompressible)
			w.commit("main", map[string]string{"noise": string(incompressible)})
			address := w.remote(w.token(nil), "acme/shop")
			undo := w.sim.Misbehave(test.wrong)
			said, err := git(t, ".", "clone", "-q", address, t.TempDir())
			if err == nil || !strings.Contains(said, test.says) {
				t.Errorf("got %v: %s", err, said)
			}
			undo()
			w.git(".", "clone", "-q", address, t.TempDir())
		})
	}
}

// What hangs goes on until the caller leaves, and nothing of it stays.
func TestFetchHangs(t *testing.T) {
	w := newWorld(t)
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "POST /acme/shop.git/git-upload-pack", HangAfter: 10})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/acme/shop.git/git-upload-pack", strings.NewReader("0014command=ls-refs\n0000"))
	w.must(err)
	req.SetBasicAuth("x-access-token", w.token(nil))
	req.Header.Set("Git-Protocol", "version=2")
	answer, err := http.DefaultClient.Do(req)
	w.must(err)
	defer answer.Body.Close()
	some := make([]byte, 10)
	_, err = io.ReadFull(answer.Body, some)
	w.must(err)
	cancel()
	if _, err := answer.Body.Read(some); !errors.Is(err, context.Canceled) {
		t.Errorf("there is more: %v", err)
	}
}

func TestAnswerShorterThanTheCutIsWhole(t *testing.T) {
	w := newWorld(t)
	w.sim.Misbehave(githubsim.Misbehaviour{CutAfter: 100 << 20})
	w.clone()
}

func TestGitReadsAreLimited(t *testing.T) {
	w := newWorld(t, func(c *githubsim.Config) { c.Limits = githubsim.Limits{GitReads: 2} })
	address := w.remote(w.token(nil), "acme/shop")
	// Git asks once more where it was asked for credentials; it is nobody then, who sees no repository to count for.
	w.git(".", "ls-remote", address)
	w.git(".", "ls-remote", address)
	if said, err := git(t, ".", "ls-remote", address); err == nil || !strings.Contains(said, "429") {
		t.Errorf("the third within a second: %v: %s", err, said)
	}
	w.clock.advance(time.Second)
	w.git(".", "ls-remote", address)
	status, _, header := w.askGit(t, "acme/shop", "")
	if status != http.StatusUnauthorized || header.Get("X-Ratelimit-Limit") != "" {
		t.Errorf("got %d, and headers of the API's limits", status)
	}
}

func TestCloseEndsWhatGitServes(t *testing.T) {
	w := newWorld(t)
	address := w.remote(w.token(nil), "acme/shop")
	w.sim.Close()
	if said, err := git(t, ".", "ls-remote", address); err == nil || !strings.Contains(said, "closed") {
		t.Errorf("got %v: %s", err, said)
	}
}
