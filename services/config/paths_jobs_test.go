package config

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

const jobsFile = `image: busybox
jobs:
  any: {execute: make}
  web: {if: {paths: ["web/**", "*.json"]}, execute: make}
  api: {if: {paths: "api/**"}, matrix: {go: [1, 2]}, execute: make}
  both: {if: {paths: ["api/**", "web/**"]}, execute: make}
staging:
  jobs:
    web: {execute: make}
    smoke: {if: {paths: "smoke/**"}, execute: make}
push:
  branches: main
  jobs:
    api: {if: {paths: "docs/**"}, execute: make}
    docs: {if: {paths: "docs/**"}, execute: make}
`

// leftOut asks which jobs of a part miss a change, as a pull request and as a push.
func (w *world) leftOut(part configv1.GetBuildConfigRequest_Part, sha string, pull int, base string) (*configv1.GetBuildConfigResponse, error) {
	req := &configv1.GetBuildConfigRequest{Repository: w.repo, InstallationId: w.install, Sha: sha, Part: part}
	req.Change = &configv1.GetBuildConfigRequest_BaseSha{BaseSha: base}
	if pull != 0 {
		req.Change = &configv1.GetBuildConfigRequest_PullRequest{PullRequest: int32(pull)}
	}
	return configv1.NewBuildConfigServiceClient(w.as("scheduler")).GetBuildConfig(w.t.Context(), req)
}

func TestPathsOfJobsAreHeldAgainstChangedFiles(t *testing.T) {
	const (
		all     = configv1.GetBuildConfigRequest_PART_UNSPECIFIED
		execute = configv1.GetBuildConfigRequest_PART_EXECUTE
		staging = configv1.GetBuildConfigRequest_PART_STAGING
		push    = configv1.GetBuildConfigRequest_PART_PUSH
	)
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": jobsFile}})
	for n, c := range []struct {
		change githubsim.Commit
		want   map[configv1.GetBuildConfigRequest_Part]string
	}{
		{write("web/a"), map[configv1.GetBuildConfigRequest_Part]string{execute: "api", staging: "smoke", push: "api docs", all: "api smoke docs"}},
		{write("api/a", "package.json"), map[configv1.GetBuildConfigRequest_Part]string{execute: "", staging: "smoke", push: "api docs", all: "smoke docs"}},
		{write("docs/a"), map[configv1.GetBuildConfigRequest_Part]string{execute: "web api both", staging: "smoke", push: "", all: "both smoke"}},
		{write(append(many("other/%d", 150), "web/z")...), map[configv1.GetBuildConfigRequest_Part]string{execute: "api"}},
		{githubsim.Commit{Message: "nothing"}, map[configv1.GetBuildConfigRequest_Part]string{execute: "", push: ""}},
	} {
		base := w.head()
		sha, number := w.propose("p"+string(rune('a'+n)), c.change)
		for part, want := range c.want {
			for _, pull := range []int{number, 0} {
				answer, err := w.leftOut(part, sha, pull, base)
				if got := strings.Join(answer.GetJobsWithoutMatchingPaths(), " "); err != nil || got != want || answer.GetNoMatchingPaths() {
					t.Errorf("change %d, %v, pull request %d: %q, error %v, want %q", n, part, pull, got, err, want)
				}
			}
		}
		if answer, err := w.changes(sha, 0, ""); err != nil || len(answer.GetJobsWithoutMatchingPaths()) > 0 {
			t.Errorf("change %d: %v without a change that was named, error %v", n, answer.GetJobsWithoutMatchingPaths(), err)
		}
	}
}

func TestStagingWithoutJobsIsExecute(t *testing.T) {
	w := newWorld(t)
	before, _, _ := strings.Cut(jobsFile, "staging:")
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": before}})
	sha, number := w.propose("web", write("web/a"))
	answer, err := w.leftOut(configv1.GetBuildConfigRequest_PART_STAGING, sha, number, "")
	if got := answer.GetJobsWithoutMatchingPaths(); err != nil || !slices.Equal(got, []string{"api"}) {
		t.Errorf("%v, error %v", got, err)
	}
}

// Both kinds of paths are answered from one list of files.
func TestPathsOfTheFileAndOfJobs(t *testing.T) {
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": jobsFile + "paths: {ignore: ['**/*.md']}\n"}})
	sha, number := w.propose("docs", write("web/README.md"))
	before := w.calls("/files")
	answer, err := w.leftOut(configv1.GetBuildConfigRequest_PART_EXECUTE, sha, number, "")
	if err != nil || !answer.GetNoMatchingPaths() || !slices.Equal(answer.GetJobsWithoutMatchingPaths(), []string{"api"}) {
		t.Errorf("%v, error %v", answer, err)
	}
	if n := w.calls("/files") - before; n != 1 {
		t.Errorf("%d lists of files", n)
	}
}

func TestJobsRunWhereTheChangeCannotBeTold(t *testing.T) {
	w := newWorld(t)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": jobsFile}})
	base := w.head()
	sha, number := w.propose("web", write("web/a"))
	none := func(what, sha string, pull int, base string) {
		t.Helper()
		answer, err := w.leftOut(configv1.GetBuildConfigRequest_PART_EXECUTE, sha, pull, base)
		if err != nil || answer.GetConfig() == nil || len(answer.GetJobsWithoutMatchingPaths()) > 0 {
			t.Errorf("%s: %v, error %v", what, answer.GetJobsWithoutMatchingPaths(), err)
		}
	}
	none("a new branch", sha, 0, strings.Repeat("0", 40))
	none("a commit that is gone", sha, 0, strings.Repeat("1", 40))
	none("a push back", base, 0, sha)
	none("a pull request that is not there", sha, 9999, "")
	w.on("web", write("api/a"))
	none("another head", sha, number, "")
	large, _ := w.propose("large", write(many("other/%03d", 300)...))
	none("a list at GitHub's limit", large, 0, base)
	for status, again := range map[int]bool{403: false, 404: false, 422: false, 500: true} {
		w.front.answers("/compare", status, "no")
		if !again {
			none(http.StatusText(status), sha, 0, base)
		} else if _, err := w.leftOut(configv1.GetBuildConfigRequest_PART_EXECUTE, sha, 0, base); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%d: error %v", status, err)
		}
	}
}
