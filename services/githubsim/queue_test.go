package githubsim_test

import (
	"testing"

	"github.com/google/go-github/v62/github"
)

// status tells forge/test of a commit.
func (w *world) status(sha, state string) {
	w.t.Helper()
	_, _, err := w.shop().Repositories.CreateStatus(w.t.Context(), "acme", "shop", sha, &github.RepoStatus{State: &state, Context: new("forge/test")})
	w.must(err)
}

func (w *world) queue() []int {
	w.t.Helper()
	groups, err := w.sim.MergeQueue("acme", "shop")
	w.must(err)
	var numbers []int
	for _, g := range groups {
		numbers = append(numbers, g.PullRequest)
	}
	return numbers
}

func TestQueueMergesWhatPasses(t *testing.T) {
	w := newWorld(t)
	base := w.head()
	w.must(w.sim.RequireStatus("acme", "shop", "forge/test"))
	number := w.pull("feature")
	w.news()
	w.must(w.sim.Enqueue("acme", "shop", number))
	groups, err := w.sim.MergeQueue("acme", "shop")
	w.must(err)
	g := groups[0]
	if g.PullRequest != number || g.BaseSHA != base || g.BaseRef != "refs/heads/main" || g.HeadRef != "refs/heads/gh-readonly-queue/main/pr-1-"+base {
		t.Errorf("got %+v", g)
	}
	wantNews(t, w.news(), "pull_request enqueued #1", "push "+g.HeadRef+" created=true deleted=false", "merge_group checks_requested "+g.HeadRef)
	if at, err := w.sim.Head("acme", "shop", g.HeadRef); err != nil || at != g.HeadSHA {
		t.Errorf("the group's branch is at %s, error %v", at, err)
	}
	w.status(g.HeadSHA, "pending")
	if w.head() != base {
		t.Error("merged before it has passed")
	}
	w.status(g.HeadSHA, "success")
	if w.head() != g.HeadSHA {
		t.Errorf("main is at %s, want the group's %s", w.head(), g.HeadSHA)
	}
	wantNews(t, w.news(), "merge_group destroyed "+g.HeadRef, "push "+g.HeadRef+" created=false deleted=true",
		"push refs/heads/main created=false deleted=false", "pull_request closed #1")
	p, err := w.sim.PullRequest("acme", "shop", number)
	if err != nil || !p.Merged || p.MergeCommit != g.HeadSHA {
		t.Errorf("got %+v, error %v", p, err)
	}
}

func TestGroupsBehindOneThatFailsAreMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.RequireStatus("acme", "shop", "forge/test"))
	for _, branch := range []string{"one", "two", "three"} {
		w.must(w.sim.Enqueue("acme", "shop", w.pull(branch)))
	}
	before, err := w.sim.MergeQueue("acme", "shop")
	w.must(err)
	if before[1].BaseSHA != before[0].HeadSHA || before[2].BaseSHA != before[1].HeadSHA {
		t.Errorf("each rests on the one before it: got %+v", before)
	}
	w.status(before[2].HeadSHA, "success") // has to wait for the others
	w.news()
	w.status(before[1].HeadSHA, "failure")
	after, err := w.sim.MergeQueue("acme", "shop")
	w.must(err)
	if len(after) != 2 || after[0] != before[0] || after[1].PullRequest != 3 || after[1].BaseSHA != before[0].HeadSHA {
		t.Errorf("got %+v", after)
	}
	wantNews(t, w.news(),
		"merge_group destroyed "+before[1].HeadRef, "push "+before[1].HeadRef+" created=false deleted=true", "pull_request dequeued #2",
		"merge_group destroyed "+before[2].HeadRef, "push "+before[2].HeadRef+" created=false deleted=true",
		"push "+after[1].HeadRef+" created=true deleted=false", "merge_group checks_requested "+after[1].HeadRef)
	w.status(after[1].HeadSHA, "success")
	w.status(after[0].HeadSHA, "success") // lets both through
	if w.head() != after[1].HeadSHA || len(w.queue()) != 0 {
		t.Errorf("main is at %s with %v queued, want %s", w.head(), w.queue(), after[1].HeadSHA)
	}
}

func TestChangesTakePullRequestsOutOfTheQueue(t *testing.T) {
	for name, change := range map[string]func(*world, int){
		"a push":     func(w *world, _ int) { w.commit("feature", map[string]string{"more": "more"}) },
		"closing":    func(w *world, n int) { w.must(w.sim.ClosePullRequest("acme", "shop", n)) },
		"a person":   func(w *world, n int) { w.must(w.sim.Dequeue("acme", "shop", n)) },
		"its branch": func(w *world, _ int) { w.must(w.sim.DeleteBranch("acme", "shop", "feature")) },
		"a new base": func(w *world, n int) {
			w.must(w.sim.CreateBranch("acme", "shop", "production", "main"))
			w.must(w.sim.ChangeBase("acme", "shop", n, "production"))
		},
		"a conflict": func(w *world, _ int) { w.commit("main", map[string]string{"feature.txt": "mine"}) },
		"a merge": func(w *world, n int) {
			_, err := w.sim.Merge("acme", "shop", n)
			w.must(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			number := w.pull("feature")
			w.must(w.sim.Enqueue("acme", "shop", number))
			change(w, number)
			if left := w.queue(); len(left) != 0 {
				t.Errorf("still queued: %v", left)
			}
		})
	}
}

func TestPushToTheBaseRebuildsTheQueue(t *testing.T) {
	w := newWorld(t)
	number := w.pull("feature")
	w.must(w.sim.Enqueue("acme", "shop", number))
	tip := w.commit("main", map[string]string{"x": "x"})
	groups, err := w.sim.MergeQueue("acme", "shop")
	if err != nil || len(groups) != 1 || groups[0].BaseSHA != tip {
		t.Errorf("got %+v, error %v, want one upon %s", groups, err, tip)
	}
	w.must(w.sim.MergeQueued("acme", "shop", number))
	if w.head() != groups[0].HeadSHA {
		t.Errorf("main is at %s", w.head())
	}
}

func TestQueueRefusesWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	first, second := w.pull("one"), w.pull("two")
	w.must(w.sim.Enqueue("acme", "shop", first))
	w.must(w.sim.Enqueue("acme", "shop", second))
	w.commit("three", map[string]string{"README.md": "# Three\n"})
	for want, err := range map[string]error{
		"queue acme/shop#1: it is queued already":        w.sim.Enqueue("acme", "shop", first),
		"pull request acme/shop#9 does not exist":        w.sim.Enqueue("acme", "shop", 9),
		"merge acme/shop#2: others are queued before it": w.sim.MergeQueued("acme", "shop", second),
		"repository acme/gone does not exist":            w.sim.RequireStatus("acme", "gone"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
	w.must(w.sim.MergeQueued("acme", "shop", first))
	if err := w.sim.Dequeue("acme", "shop", first); err == nil || err.Error() != "pull request acme/shop#1 is not queued" {
		t.Errorf("got error %v", err)
	}
	if err := w.sim.Enqueue("acme", "shop", first); err == nil || err.Error() != "queue acme/shop#1: it is merged" {
		t.Errorf("got error %v", err)
	}
}
