package config

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

// toldAgo is the time of an event that came so long ago.
func (w *world) toldAgo(d time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(w.clock.Now().Add(-d))
}

func (w *world) configTold(sha string, told *timestamppb.Timestamp) (*configv1.GetBuildConfigResponse, error) {
	return configv1.NewBuildConfigServiceClient(w.as("scheduler")).GetBuildConfig(w.t.Context(),
		&configv1.GetBuildConfigRequest{Repository: w.repo, Sha: sha, EventTime: told})
}

// reads are all that config reads for a room right after a webhook, of a commit of
// a fork, a pull request and a person that GitHub's API does not show.
func (w *world) reads(base, sha string, number int32, login string, told *timestamppb.Timestamp) map[string]func() error {
	ctx, conn := w.t.Context(), w.as("scheduler")
	return map[string]func() error{
		"config": func() error { _, err := w.configTold(sha, told); return err },
		"files of the pull request": func() error {
			_, err := configv1.NewBuildConfigServiceClient(conn).GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
				Repository: w.repo, Sha: base, EventTime: told, Change: &configv1.GetBuildConfigRequest_PullRequest{PullRequest: number},
			})
			return err
		},
		"source": func() error {
			stream, err := configv1.NewSourceServiceClient(conn).GetSource(ctx, &configv1.GetSourceRequest{Repository: w.repo, Sha: sha, EventTime: told})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"comparison": func() error {
			_, err := configv1.NewCommitServiceClient(conn).CompareCommits(ctx, &configv1.CompareCommitsRequest{Repository: w.repo, Base: base, Head: sha, EventTime: told})
			return err
		},
		"pull request": func() error {
			_, err := configv1.NewPullRequestServiceClient(conn).GetPullRequest(ctx, &configv1.GetPullRequestRequest{Repository: w.repo, Number: number, EventTime: told})
			return err
		},
		"permission": func() error {
			answer, err := configv1.NewCollaboratorServiceClient(conn).GetPermission(ctx, &configv1.GetPermissionRequest{Repository: w.repo, Login: login, EventTime: told})
			if err == nil && answer.GetPermission() == configv1.GetPermissionResponse_PERMISSION_NONE {
				err = fault.New(fault.NotFound, "no permission")
			}
			return err
		},
	}
}

func TestWhatAWebhookToldIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	base := w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	w.sim.SetLag(time.Hour)
	if err := w.sim.Fork("acme", "app", "eve"); err != nil {
		t.Fatal(err)
	}
	sha, err := w.sim.Commit("eve", "app", "main", githubsim.Commit{Author: "eve", Files: map[string]string{"a": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	number, err := w.sim.OpenPullRequest("acme", "app", githubsim.PullRequest{Head: "eve:main", Base: "main", Title: "a", Author: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sim.SetPermission("acme", "app", "eve", "read"); err != nil {
		t.Fatal(err)
	}
	reads := func(told *timestamppb.Timestamp) map[string]func() error {
		return w.reads(base, sha, int32(number), "eve", told)
	}
	for _, told := range []*timestamppb.Timestamp{w.toldAgo(0), w.toldAgo(apiLateness - time.Second), w.toldAgo(-time.Minute)} {
		for name, read := range reads(told) {
			if err := read(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "GitHub's API may be later than its webhook") {
				t.Errorf("%s, told of at %v: %v", name, told.AsTime(), err)
			}
		}
	}
	for _, told := range []*timestamppb.Timestamp{w.toldAgo(apiLateness), nil} {
		for name, read := range reads(told) {
			final := fault.NotFound
			if err := read(); name != "files of the pull request" && !fault.Is(err, final) {
				t.Errorf("%s, told of at %v: %v", name, told.AsTime(), err)
			} else if name == "files of the pull request" && err != nil { // built whatever its paths say
				t.Errorf("%s, told of at %v: %v", name, told.AsTime(), err)
			}
		}
	}
	w.sim.SetLag(0)
	for name, read := range reads(w.toldAgo(0)) {
		if err := read(); err != nil {
			t.Errorf("%s once GitHub shows it: %v", name, err)
		}
	}
}

func TestAbsenceOfARecentCommitIsNeverCached(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	for _, path := range []string{contents, "/git/trees/"} { // one server has the commit, another has not
		w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
			late := strings.Contains(r.URL.Path, contents) || strings.Contains(r.URL.Path, path)
			if late {
				http.Error(out, `{"message": "Not Found"}`, http.StatusNotFound)
			}
			return late
		})
		if answer, err := w.configTold(sha, w.toldAgo(0)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("while %s is late: %v, error %v", path, answer, err)
		}
	}
	w.front.set(nil)
	if answer, err := w.configTold(sha, w.toldAgo(0)); err != nil || answer.GetConfig() == nil {
		t.Errorf("got %v, error %v", answer, err)
	}

	bare := w.commit(githubsim.Commit{Delete: []string{".forge.yml"}})
	for range 2 {
		if answer, err := w.configTold(bare, w.toldAgo(0)); err != nil || answer.GetAbsent() == nil {
			t.Errorf("the tree lacks the file: got %v, error %v", answer, err)
		}
	}
	if n := w.calls("/git/trees/" + bare); n != 2 {
		t.Errorf("the absence was proven %d times, want 2", n)
	}
}

// An App that was just installed is not found for a moment.
func TestInstallationThatAWebhookToldOfIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	if err := w.sim.AddRepository(githubsim.Repository{Owner: "new", Name: "app", Files: map[string]string{".forge.yml": goodFile}}); err != nil {
		t.Fatal(err)
	}
	sha, err := w.sim.Head("new", "app", "main")
	if err != nil {
		t.Fatal(err)
	}
	w.repo = &eventv1.Repository{Owner: "new", Name: "app"}
	if answer, err := w.configTold(sha, w.toldAgo(0)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("told of just now: %v, error %v", answer, err)
	}
	if answer, err := w.configTold(sha, w.toldAgo(apiLateness)); err != nil || answer.GetForbidden() == nil {
		t.Errorf("told of long ago: %v, error %v", answer, err)
	}
	w.sim.AddInstallation("new")
	if answer, err := w.configTold(sha, w.toldAgo(0)); err != nil || answer.GetConfig() == nil {
		t.Errorf("installed: %v, error %v", answer, err)
	}
}

func TestUnrelatedHistoriesAreNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	const message = "No common ancestor between a and b."
	w.front.answers("/compare/", http.StatusNotFound, message)
	_, err := configv1.NewCommitServiceClient(w.as("scheduler")).CompareCommits(t.Context(), &configv1.CompareCommitsRequest{
		Repository: w.repo, Base: strings.Repeat("0", 40), Head: w.head(), EventTime: w.toldAgo(0),
	})
	w.wantFault(err, fault.NotFound, message)
}

func TestSecondNameOfTheFile(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change githubsim.Commit
		want   string // the image, or what is wrong
	}{
		"second name alone": {githubsim.Commit{Delete: []string{".forge.yml"}, Files: map[string]string{".forge.yaml": "image: second\nexecute: [a]\n"}}, "second"},
		"both":              {githubsim.Commit{Files: map[string]string{".forge.yml": goodFile, ".forge.yaml": goodFile}}, "the commit holds .forge.yml and .forge.yaml: keep one of them"},
		"a folder beside":   {githubsim.Commit{Files: map[string]string{".forge.yml": goodFile, ".forge.yaml/x": "y"}, Delete: []string{".forge.yaml"}}, "the commit holds .forge.yml and .forge.yaml: keep one of them"},
		"bad second":        {githubsim.Commit{Delete: []string{".forge.yml", ".forge.yaml/x"}, Files: map[string]string{".forge.yaml": "excute: [a]\n"}}, `unknown key "excute"`},
	} {
		sha := w.on(w.branch(strings.ReplaceAll(name, " ", "-"), "main"), c.change)
		answer, err := w.config(sha)
		got := answer.GetConfig().GetImage()
		if problems := answer.GetInvalid().GetProblems(); len(problems) > 0 {
			got = problems[0].GetMessage()
			if file := problems[0].GetFile(); (name == "bad second") != (file == ".forge.yaml") {
				t.Errorf("%s: the problem is in %q", name, file)
			}
		}
		if err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, error %v, want %q", name, got, err, c.want)
		}
	}
	// Whether there are two is not known while GitHub has trouble with one of them.
	for _, path := range []string{"/contents/.forge.yml", "/contents/.forge.yaml"} {
		w.front.answers(path, 500, "unicorn")
		sha := w.commit(githubsim.Commit{Files: map[string]string{"a": path}})
		_, err := w.config(sha)
		w.wantFault(err, fault.Unavailable, "GitHub had trouble")
		w.front.set(nil)
		if answer, err := w.config(sha); err != nil || answer.GetConfig() == nil {
			t.Error(errors.Join(err, fmt.Errorf("after the trouble: %v", answer)))
		}
	}
}
