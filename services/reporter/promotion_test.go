package reporter

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func (w *world) promote(s *Service, sha string) {
	w.t.Helper()
	_, err := s.Promote(w.t.Context(), &reporterv1.PromoteRequest{
		Repository: w.repository, InstallationId: w.installation, Head: "main", Base: "production", Sha: sha,
		BuildUrl: "http://forge.example/builds/" + sha,
	})
	w.must(err)
}

// ahead makes a branch production that main is ahead of, and returns main's head.
func (w *world) ahead() string {
	w.t.Helper()
	w.must(w.sim.CreateBranch("octo", "shop", "production", "main"))
	return w.commit()
}

func (w *world) commit() string {
	w.t.Helper()
	sha, err := w.sim.Commit("octo", "shop", "main", githubsim.Commit{Files: map[string]string{"news": strings.Repeat("n", len(w.sim.Calls())+1)}})
	w.must(err)
	return sha
}

func (w *world) pulls(want int) []githubsim.PullRequest {
	w.t.Helper()
	list, err := w.sim.PullRequests("octo", "shop")
	w.must(err)
	if len(list) != want {
		w.t.Fatalf("pull requests %+v, want %d", list, want)
	}
	return list
}

func TestPromotionIsOpenedOncePerCommit(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.background(s.Run)
		first := w.ahead()
		w.promote(s, first)
		if got := w.reaches(s, told); got.GetPullRequest() != 1 || got.GetDescription() != "opened" || got.GetContext() != "main → production" {
			t.Errorf("target is %v", got)
		}
		opened := w.pulls(1)[0]
		if opened.Title != "Promote main to production" || opened.Head != "main" || opened.Base != "production" || !strings.Contains(opened.Body, "http://forge.example/builds/"+first) {
			t.Errorf("opened %+v", opened)
		}

		w.promote(s, w.commit())
		if got := w.reaches(s, told); got.GetPullRequest() != 1 || got.GetDescription() != "found open" {
			t.Errorf("target is %v", got)
		}

		// Somebody said no; the same commit is not asked for again, the next one is.
		w.must(w.sim.ClosePullRequest("octo", "shop", 1))
		last := w.target(s)
		w.promote(s, last.GetSha())
		if got := w.target(s); got.GetState() != told || got.GetVersion() != last.GetVersion() {
			t.Errorf("asked for again: %v", got)
		}
		w.promote(s, w.commit())
		if got := w.reaches(s, told); got.GetPullRequest() != 2 {
			t.Errorf("target is %v", got)
		}
		w.pulls(2)
	})
}

func TestPromotionWithNothingToOpenIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*world)
		note    string
	}{
		"no production branch": {func(*world) {}, "no branch production"},
		"nothing new":          {func(w *world) { w.must(w.sim.CreateBranch("octo", "shop", "production", "main")) }, "nothing to promote"},
	} {
		t.Run(name, func(t *testing.T) {
			onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
				c.prepare(w)
				s := w.reporter(open())
				w.background(s.Run)
				w.promote(s, w.sha)
				if got := w.reaches(s, told); got.GetDescription() != c.note || got.GetPullRequest() != 0 {
					t.Errorf("target is %v, want %q", got, c.note)
				}
				w.pulls(0)
			})
		})
	}
}

func TestPromotionIsNeverOpenedTwice(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		lists := 0 // right after the first, somebody opens the same by hand
		w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/pulls") {
				if lists++; lists == 1 {
					w.sim.ServeHTTP(rw, r)
					_, err := w.sim.OpenPullRequest("octo", "shop", githubsim.PullRequest{Title: "by hand", Head: "main", Base: "production"})
					w.must(err)
					return true
				}
			}
			return false
		})
		w.background(s.Run)
		w.promote(s, w.ahead())
		if got := w.reaches(s, told); got.GetPullRequest() != 1 || got.GetDescription() != "found open" {
			t.Errorf("target is %v", got)
		}
		w.pulls(1)
	})
}

func TestLostAnswerToAnOpenedPromotionIsFoundAgain(t *testing.T) {
	onSQLite(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		w.onTheWay(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.sim.ServeHTTP(&lostResponse{}, r)
				panic(http.ErrAbortHandler)
			}
			return false
		})
		w.background(s.Run)
		w.promote(s, w.ahead())
		w.reaches(s, failing)
		w.clock.Advance(firstPause)
		s.wake()
		if got := w.reaches(s, told); got.GetPullRequest() != 1 || got.GetDescription() != "found open" {
			t.Errorf("target is %v", got)
		}
		w.pulls(1)
	})
}

func TestPromotionListsThePullRequestsItCarries(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.ahead()
	for _, title := range []string{"Sell apples", "Sell pears, @octocat", "Never merged"} {
		branch := strings.ToLower(strings.Fields(title)[1])
		w.must(w.sim.CreateBranch("octo", "shop", branch, "main"))
		_, err := w.sim.Commit("octo", "shop", branch, githubsim.Commit{Files: map[string]string{branch: branch}})
		w.must(err)
		number, err := w.sim.OpenPullRequest("octo", "shop", githubsim.PullRequest{Title: title, Head: branch})
		w.must(err)
		if title != "Never merged" {
			_, err = w.sim.Merge("octo", "shop", number)
			w.must(err)
		}
	}
	head, err := w.sim.Head("octo", "shop", "main")
	w.must(err)
	w.promote(s, head)
	w.publishAll(s)
	body := w.pulls(4)[3].Body
	if !strings.HasSuffix(body, "\nIt carries:\n\n- #2 Sell pears, @\u200boctocat\n- #1 Sell apples\n") {
		t.Errorf("body %q", body)
	}
}

func TestBodyOfAPromotion(t *testing.T) {
	one := target{head: "main", base: "production", sha: strings.Repeat("3f2a", 10), desired: display{url: "http://forge.example/builds/b1"}}
	family := "👨\u200d👩\u200d👧\u200d👦"
	var carried []*github.PullRequest
	for i, title := range []string{"Sell apples", "@octocat <b>`x`</b> [a](http://b) #1", "тесты 測試 " + family, strings.Repeat("long ", 60)} { //nolint:gosmopolitan // the point of it
		carried = append(carried, &github.PullRequest{Number: new(i + 1), Title: &title})
	}
	var out bytes.Buffer
	fmt.Fprintln(&out, promotionBody(one, nil))
	fmt.Fprintln(&out, promotionBody(one, carried))
	kittest.Golden(t, "promotion", out.Bytes())
	for range listedPulls {
		carried = append(carried, carried[0])
	}
	if body := promotionBody(one, carried); !strings.HasSuffix(body, "- and 4 more\n") {
		t.Errorf("body ends in %q", body[len(body)-40:])
	}
}
