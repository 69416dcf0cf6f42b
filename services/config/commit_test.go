package config

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
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

func TestCommitIsShownWithItsWholeMessage(t *testing.T) {
	w := newWorld(t)
	const message = "Mend a typo\n\nskip-checks: true"
	sha, err := w.sim.Commit("acme", "app", "main", githubsim.Commit{Files: map[string]string{"a": "x"}, Message: message})
	if err != nil {
		t.Fatal(err)
	}
	commits := configv1.NewCommitServiceClient(w.as("scheduler"))
	get := func(sha string, at *timestamppb.Timestamp) (*configv1.GetCommitResponse, error) {
		return commits.GetCommit(t.Context(), &configv1.GetCommitRequest{Repository: w.repo, Sha: sha, EventTime: at})
	}
	if answer, err := get(sha, nil); err != nil || answer.GetSha() != sha || answer.GetMessage() != message {
		t.Errorf("%v, %v", answer, err)
	}
	none := strings.Repeat("0", 40)
	if _, err := get(none, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("a commit that is not there: %v", err)
	}
	if _, err := get(none, timestamppb.Now()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a commit that a webhook told of just now: %v", err)
	}
	if _, err := get("main", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("a branch: %v", err)
	}
	w.front.answers("/commits/", 502, "down")
	if _, err := get(sha, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
}

func TestRepositoryIsKnownByItsName(t *testing.T) {
	w := newWorld(t)
	repositories := configv1.NewRepositoryServiceClient(w.as("scheduler"))
	answer, err := repositories.GetRepository(t.Context(), &configv1.GetRepositoryRequest{Owner: "ACME", Name: "APP"})
	if r := answer.GetRepository(); err != nil || r.GetId() != w.repo.GetId() || r.GetOwner() != "acme" || r.GetName() != "app" || r.GetDefaultBranch() != "main" {
		t.Errorf("%v, %v", answer, err)
	}
	for _, name := range []string{"gone", ""} {
		if _, err := repositories.GetRepository(t.Context(), &configv1.GetRepositoryRequest{Owner: "acme", Name: name}); err == nil {
			t.Errorf("found %q", name)
		}
	}
}

func TestCommitIsFoundOnItsBranchAlone(t *testing.T) {
	w := newWorld(t)
	commits := configv1.NewCommitServiceClient(w.as("scheduler"))
	first := w.head()
	second := w.commit(githubsim.Commit{Message: "Second\n\nAt length", Files: map[string]string{"a": "x"}})
	if err := w.sim.CreateBranch("acme", "app", "side", "main"); err != nil {
		t.Fatal(err)
	}
	side, err := w.sim.Commit("acme", "app", "side", githubsim.Commit{Files: map[string]string{"b": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Fork("acme", "app", "eve"); err != nil {
		t.Fatal(err)
	}
	forks, err := w.sim.Commit("eve", "app", "main", githubsim.Commit{Files: map[string]string{"c": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		branch, sha string
		want        string // branch, sha and whether it is the newest; of an error, its text
	}{
		"newest of the default branch": {"", "", "main " + second + " true"},
		"newest by its sha":            {"main", second, "main " + second + " true"},
		"older":                        {"main", first, "main " + first + " false"},
		"another branch":               {"side", "", "side " + side + " true"},
		"not on that branch":           {"main", side, "branch main of ACME/app does not hold the commit " + side},
		"a fork's":                     {"main", forks, "branch main of ACME/app does not hold the commit " + forks},
		"no such commit":               {"main", strings.Repeat("0", 40), "branch main of ACME/app does not hold the commit " + strings.Repeat("0", 40)},
		"no such branch":               {"gone", "", "branch gone: "},
		"no sha":                       {"main", "main", `"main" is not the full sha of a commit`},
	} {
		found, err := commits.FindCommit(t.Context(), &configv1.FindCommitRequest{
			Repository: &eventv1.Repository{Owner: "ACME", Name: "app"}, Branch: c.branch, Sha: c.sha,
		})
		got := fmt.Sprint(found.GetBranch(), " ", found.GetSha(), " ", found.GetNewest())
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if err == nil && (found.GetRepository().GetId() != w.repo.GetId() || found.GetRepository().GetOwner() != "acme") {
			t.Errorf("%s: %v", name, found)
		}
		if found.GetSha() == second && found.GetTitle() != "Second" {
			t.Errorf("%s: title %q", name, found.GetTitle())
		}
	}
	if _, err := commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: &eventv1.Repository{Owner: "x", Name: "y"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("where the App is not installed: %v", err)
	}
	w.front.answers("/compare/", 502, "down")
	if _, err := commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: w.repo, Sha: first}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("GitHub is down: %v", err)
	}
}

func TestCommitIsFoundByItsTag(t *testing.T) {
	w := newWorld(t)
	commits := configv1.NewCommitServiceClient(w.as("scheduler"))
	sha := w.commit(githubsim.Commit{Message: "Second\n\nAt length", Files: map[string]string{"a": "x"}})
	for _, tag := range []string{"v1", "cli/v1"} {
		if err := w.sim.CreateTag("acme", "app", tag, "main"); err != nil {
			t.Fatal(err)
		}
		found, err := commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: w.repo, Tag: tag})
		if err != nil || found.GetSha() != sha || found.GetTitle() != "Second" || found.GetRepository().GetId() != w.repo.GetId() {
			t.Errorf("%s: %v, %v", tag, found, err)
		}
	}
	_, err := commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: w.repo, Tag: "main"})
	w.wantFault(err, fault.NotFound, "acme/app has no tag main")
	_, err = commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: w.repo, Tag: "gone", EventTime: timestamppb.New(w.clock.Now())})
	w.wantFault(err, fault.Unavailable, "acme/app has no tag gone")
	_, err = commits.FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: w.repo, Tag: "v1", Branch: "main"})
	w.wantFault(err, fault.Invalid, "a tag stands in place of a branch")
}
