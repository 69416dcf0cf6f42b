package config

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestCommitsAreComparedByHistory(t *testing.T) {
	w := newWorld(t)
	commits := configv1.NewCommitServiceClient(w.as("scheduler"))
	first := w.head()
	if err := w.sim.CreateBranch("acme", "app", "side", "main"); err != nil {
		t.Fatal(err)
	}
	commit := func(branch, file string) string {
		sha, err := w.sim.Commit("acme", "app", branch, githubsim.Commit{Files: map[string]string{file: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		return sha
	}
	second, side := commit("main", "a"), commit("side", "b")
	for _, c := range []struct {
		base, head string
		want       configv1.CompareCommitsResponse_Relation
	}{
		{first, first, configv1.CompareCommitsResponse_RELATION_IDENTICAL},
		{first, second, configv1.CompareCommitsResponse_RELATION_AHEAD},
		{second, first, configv1.CompareCommitsResponse_RELATION_BEHIND},
		{second, side, configv1.CompareCommitsResponse_RELATION_DIVERGED},
	} {
		answer, err := commits.CompareCommits(t.Context(), &configv1.CompareCommitsRequest{Repository: w.repo, Base: c.base, Head: c.head})
		if err != nil || answer.GetRelation() != c.want {
			t.Errorf("%s...%s: %v, %v; want %v", c.base, c.head, answer.GetRelation(), err, c.want)
		}
	}
}

func TestCommitsThatCannotBeComparedSayWhy(t *testing.T) {
	w := newWorld(t)
	commits := configv1.NewCommitServiceClient(w.as("scheduler"))
	compare := func(base string) error {
		_, err := commits.CompareCommits(t.Context(), &configv1.CompareCommitsRequest{Repository: w.repo, Base: base, Head: w.head()})
		return err
	}
	if err := compare(strings.Repeat("0", 40)); !fault.Is(err, fault.NotFound) {
		t.Errorf("a commit that is not there: %v", err)
	}
	if err := compare("main"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a branch: %v", err)
	}
	w.front.answers("/compare/", 200, `{"status":"sideways"}`)
	if err := compare(strings.Repeat("0", 40)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an answer that says nothing: %v", err)
	}
	w.front.answers("/compare/", 502, "down")
	if err := compare(strings.Repeat("0", 40)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
}
