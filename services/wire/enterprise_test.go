package wire_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// An Enterprise Server has its API below /api/v3, and nothing of it elsewhere but
// what it redirects to.
func TestStoryOnAnEnterpriseServer(t *testing.T) {
	w := newWorld(t, hello())
	var (
		mu    sync.Mutex
		stray []string
		seen  = map[string]bool{}
	)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		mu.Lock()
		below, ok := strings.CutPrefix(r.URL.Path, "/api/v3/")
		switch {
		case ok:
			seen[strings.Split(below, "/")[0]] = true
		case strings.Contains(r.URL.Path, ".git/"): // which is of no API
			user, _, _ := r.BasicAuth()
			seen["source"] = user == "x-access-token"
		default:
			stray = append(stray, r.Method+" "+r.URL.Path)
		}
		mu.Unlock()
		w.sim.ServeHTTP(out, r)
	}))
	t.Cleanup(server.Close)
	w.sim.SetURL(server.URL)
	w.env = append(w.env, "FORGE_GITHUB_API_URL="+server.URL+"/api/v3", "FORGE_GITHUB_URL="+server.URL, "FORGE_REPORT=both", "FORGE_WEBHOOK_ALLOWED_IPS=127.0.0.0/8")
	w.up(t)
	tell(t, w)
	w.says(t, "GitHub's deliveries since", "recover")
	mu.Lock()
	defer mu.Unlock()
	if len(stray) > 0 {
		t.Errorf("asked outside of the API: %q", stray)
	}
	for _, part := range []string{"app", "repos", "source", "installation"} {
		if !seen[part] {
			t.Errorf("nobody asked for %s: %v", part, seen)
		}
	}
}

// at is the status that a commit of another repository than the usual shows.
func (w *world) at(t *testing.T, owner, repo, sha, state string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		statuses, err := w.sim.Statuses(owner, repo, sha)
		if err == nil && statuses["forge/test"].State != state {
			err = fmt.Errorf("%s/%s shows %+v", owner, repo, statuses)
		}
		return err
	})
}

// A repository is built whatever it is called, wherever it goes and whoever
// suspended the App meanwhile.
func TestRepositoryThatMovesIsStillBuilt(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	number, head := w.propose(t, "change", files("greeting", "hello again\n"))
	w.shows(t, head, "forge/test", "success")
	push := func(owner, repo, text string) string {
		t.Helper()
		sha, err := w.sim.Commit(owner, repo, "change", files("greeting", "hello "+text+"\n"))
		must(t, err)
		return sha
	}

	must(t, w.sim.RenameRepository(owner, repo, "renamed"))
	w.at(t, owner, "renamed", push(owner, "renamed", "under another name"), "success")

	w.sim.AddInstallation("elsewhere")
	must(t, w.sim.TransferRepository(owner, "renamed", "elsewhere"))
	w.at(t, "elsewhere", "renamed", push("elsewhere", "renamed", "from elsewhere"), "success")

	must(t, w.sim.SuspendInstallation("elsewhere"))
	w.until(t, "installation", "")
	missed := push("elsewhere", "renamed", "to nobody")
	must(t, w.sim.UnsuspendInstallation("elsewhere"))
	w.at(t, "elsewhere", "renamed", push("elsewhere", "renamed", "to all again"), "success")
	if statuses, err := w.sim.Statuses("elsewhere", "renamed", missed); err != nil || len(statuses) > 0 {
		t.Errorf("of what was pushed while the App was suspended GitHub shows %v, %v", statuses, err)
	}
	merged, err := w.sim.Merge("elsewhere", "renamed", number)
	must(t, err)
	kittest.Eventually(t, patience, func() error {
		statuses, err := w.sim.Statuses("elsewhere", "renamed", merged)
		if err == nil && statuses["forge/deploy-staging"].State != "success" {
			err = fmt.Errorf("shows %+v", statuses)
		}
		return err
	})
}

// What the merge queue builds and what is pushed is held against paths as well.
func TestPathsOfPushesAndMergeGroups(t *testing.T) {
	repository := picky()
	repository[".forge.yml"] += "push: {branches: [main], execute: [echo pushed]}\n"
	w := newWorld(t, repository)
	must(t, w.sim.RequireStatus(owner, repo, "forge/test"))
	w.up(t)
	docs, head := w.propose(t, "docs", files("docs/guide", "read me"))
	w.shows(t, head, "forge/test", "success")
	must(t, w.sim.Enqueue(owner, repo, docs))
	merged := w.merges(t, docs)
	if status := w.shows(t, merged, "forge/test", "success"); status.Description != "Skipped: no matching paths" {
		t.Errorf("the merge group's commit shows %q", status.Description)
	}
	if status := w.shows(t, merged, "forge/push", "success"); status.Description != "Skipped: no matching paths" {
		t.Errorf("the push shows %q", status.Description)
	}
	code, head := w.propose(t, "code", files("greeting", "hello there\n"))
	w.shows(t, head, "forge/test", "success")
	must(t, w.sim.Enqueue(owner, repo, code))
	merged = w.merges(t, code)
	for _, context := range []string{"forge/test", "forge/push"} {
		if status := w.shows(t, merged, context, "success"); !strings.HasPrefix(status.Description, "Passed") {
			t.Errorf("%s of a change of code: %q", context, status.Description)
		}
	}
}
