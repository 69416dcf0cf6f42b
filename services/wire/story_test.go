package wire_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// hello is a repository that uses all of the main job.
func hello() map[string]string {
	return map[string]string{
		".forge.yml": lines(
			"image: busybox",
			"execute:",
			"  - name: look",
			"    run: cat greeting",
			"  - name: unit tests",
			"    run: ./test.sh",
			"environment: {MOOD: good, FORGE_SHA: not this}",
			"staging: ['echo rehearsing $FORGE_VERSION in a $MOOD mood']",
			"deploy:",
			"  staging: ['echo staging $FORGE_SHA']",
			"  production: {run: ['echo production $FORGE_SHA'], url: 'https://hello.example.com'}",
		),
		"greeting": "hello\n",
		"test.sh":  "#!/bin/sh\ngrep -q hello greeting || { echo 'nobody is greeted' >&2; exit 3; }\n",
	}
}

// The main story, against real processes: a pull request fails, is mended,
// merged, deployed to staging, promoted, deployed to production.
func TestStory(t *testing.T) { eachDeployment(t, story) }

// PgBouncer may give each transaction another connection to PostgreSQL.
func TestStoryBehindPgBouncer(t *testing.T) {
	kittest.Require(t, "pgbouncer")
	for _, apart := range []bool{false, true} {
		d := deployment{apart: apart, postgres: true, pooler: true}
		t.Run(d.String(), func(t *testing.T) { story(t, d) })
	}
}

func story(t *testing.T, d deployment) {
	w := newWorld(t, hello())
	w.deploy(t, d)
	tell(t, w)
}

func tell(t *testing.T, w *world) {
	number, broken := w.propose(t, "rude", files("greeting", "go away\n"))
	failed := w.shows(t, broken, "forge/test", "failure")
	if !strings.HasPrefix(failed.Description, `Step 2 "unit tests" failed (exit 3) after `) {
		t.Errorf("description of the failure: %q", failed.Description)
	}
	if page := w.page(t, failed.TargetURL); !strings.Contains(page, "nobody is greeted") {
		t.Errorf("the build's page does not show what it printed:\n%s", page)
	}

	mended := w.push(t, "rude", files("greeting", "hello again\n"))
	passed := w.shows(t, mended, "forge/test", "success")
	if !strings.HasPrefix(passed.Description, "Passed in ") || !strings.HasSuffix(passed.Description, ", 2 steps") {
		t.Errorf("description of the success: %q", passed.Description)
	}

	merged := w.merge(t, number)
	staged := w.shows(t, merged, "forge/deploy-staging", "success")
	if log := w.log(t, staged.TargetURL); !strings.Contains(log, "staging "+merged) {
		t.Errorf("the deploy to staging printed %q", log)
	}

	promotion := w.promotion(t)
	if promotion.Head != "main" || promotion.HeadSHA != merged {
		t.Errorf("the promotion is of %s at %s, want main at %s", promotion.Head, promotion.HeadSHA, merged)
	}
	rehearsed := w.shows(t, promotion.HeadSHA, "forge/staging", "success")
	if log := w.log(t, rehearsed.TargetURL); !strings.Contains(log, "rehearsing rc") || !strings.Contains(log, "in a good mood") {
		t.Errorf("the rehearsal printed %q", log)
	}

	released := w.merge(t, promotion.Number)
	live := w.shows(t, released, "forge/deploy-production", "success")
	if log := w.log(t, live.TargetURL); !strings.Contains(log, "production "+released) {
		t.Errorf("the deploy to production printed %q", log)
	}

	w.historiesAreSound(t, broken, mended, merged, released)
	for _, call := range w.sim.Calls() {
		if call.Route == "/" {
			t.Errorf("%s %s: Forge asked for what GitHub does not have", call.Method, call.Path)
		}
	}
}

// historiesAreSound checks that no status goes from final to pending, none has a
// description that is too long, and each leads to a page.
func (w *world) historiesAreSound(t testing.TB, shas ...string) {
	t.Helper()
	for _, sha := range shas {
		history, err := w.sim.StatusHistory(owner, repo, sha)
		if err != nil {
			t.Fatal(err)
		}
		final := map[string]bool{}
		for _, status := range history {
			if status.State == "pending" && final[status.Context] {
				t.Errorf("%s on %.7s went from final to pending", status.Context, sha)
			}
			final[status.Context] = status.State != "pending"
			if utf8.RuneCountInString(status.Description) > 140 {
				t.Errorf("%s on %.7s: description of over 140 characters: %q", status.Context, sha, status.Description)
			}
			w.page(t, status.TargetURL)
		}
	}
}

// page gets a build's page, as anybody who has its address.
func (s *server) page(t testing.TB, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s, %v", url, answer.Status, err)
	}
	return string(body)
}

// log is what the build with this page printed.
func (s *server) log(t testing.TB, url string) string {
	t.Helper()
	return s.page(t, url+"/log")
}
