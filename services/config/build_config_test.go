package config

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

const contents = "/contents/.forge.yml"

func TestBuildConfigIsReadOnceAndKept(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	for range 3 {
		answer, err := w.config(sha)
		if err != nil || answer.GetConfig().GetImage() != "busybox" || answer.GetConfig().GetExecute().GetCommands()[0].GetRun() != "make test" {
			t.Fatalf("got %v, error %v", answer, err)
		}
	}
	if n := w.calls(contents); n != 1 {
		t.Errorf("%d calls", n)
	}
	w.front.answers("/", 500, "down")
	if _, err := w.config(sha); err != nil {
		t.Errorf("kept, and yet: %v", err)
	}
}

// What may be built of a pull request is asked of its base branch, which moves.
func TestBuildConfigOfABranchIsThatOfItsTip(t *testing.T) {
	w := newWorld(t)
	client := configv1.NewBuildConfigServiceClient(w.as("scheduler"))
	read := func(req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
		req.Repository = w.repo
		return client.GetBuildConfig(t.Context(), req)
	}
	for _, image := range []string{"busybox", "alpine"} {
		w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": "image: " + image + "\nexecute: make\n"}})
		answer, err := read(&configv1.GetBuildConfigRequest{Branch: "main"})
		if err != nil || answer.GetConfig().GetImage() != image {
			t.Errorf("%s: got %v, error %v", image, answer, err)
		}
	}
	_, err := read(&configv1.GetBuildConfigRequest{Branch: "mai"})
	w.wantFault(err, fault.NotFound, "branch mai of acme/app")
	_, err = read(&configv1.GetBuildConfigRequest{Branch: "mai", EventTime: timestamppb.New(w.clock.Now())})
	w.wantFault(err, fault.Unavailable, "branch mai of acme/app")
	_, err = read(&configv1.GetBuildConfigRequest{Branch: "main", Sha: w.head()})
	w.wantFault(err, fault.Invalid, "a branch stands in place of a commit")
	w.hasToken()
	w.front.answers("/git/ref/", 403, "Resource not accessible by integration")
	if answer, err := read(&configv1.GetBuildConfigRequest{Branch: "main"}); err != nil || answer.GetForbidden() == nil {
		t.Errorf("refused: got %v, error %v", answer, err)
	}
}

func TestOneCallHoweverManyAskForACommit(t *testing.T) {
	w := newWorld(t)
	sha, client := w.head(), configv1.NewBuildConfigServiceClient(w.as("scheduler"))
	var wait sync.WaitGroup
	for range 1000 {
		wait.Go(func() {
			answer, err := client.GetBuildConfig(t.Context(), &configv1.GetBuildConfigRequest{Repository: w.repo, Sha: sha})
			if err != nil || answer.GetConfig() == nil {
				t.Errorf("got %v, error %v", answer, err)
			}
		})
	}
	wait.Wait()
	if n := w.calls(contents); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestCommitsThatCannotBeBuiltSayWhy(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		change githubsim.Commit
		want   string
	}{
		{"broken", githubsim.Commit{Files: map[string]string{".forge.yml": "image: busybox\nexceute: x\n"}}, `2:1: unknown key "exceute", did you mean "execute"?`},
		{"empty", githubsim.Commit{Files: map[string]string{".forge.yml": ""}}, "1:1: image is required"},
		{"large", githubsim.Commit{Files: map[string]string{".forge.yml": goodFile + strings.Repeat("#", 256<<10)}}, "1:1: the file is larger than 256 KiB"},
		{"not inline any more", githubsim.Commit{Files: map[string]string{".forge.yml": goodFile + strings.Repeat("#", 2<<20)}}, "1:1: the file is larger than 256 KiB"},
		{"link", githubsim.Commit{Links: map[string]string{".forge.yml": "ci.yml"}}, "1:1: it is a symbolic link: make it a file"},
		{"folder", githubsim.Commit{Delete: []string{".forge.yml"}, Files: map[string]string{".forge.yml/x": "y"}}, "1:1: it is a folder: make it a file"},
	} {
		answer, err := w.config(w.commit(c.change))
		problems := answer.GetInvalid().GetProblems()
		if err != nil || len(problems) == 0 {
			t.Errorf("%s: got %v, error %v", c.name, answer, err)
			continue
		}
		if got := fmt.Sprintf("%d:%d: %s", problems[0].GetLine(), problems[0].GetColumn(), problems[0].GetMessage()); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %s", c.name, got)
		}
	}
}

func TestSubmoduleAndGiantAreInvalid(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{"type": "file", "name": ".forge.yml", "size": 0, "submodule_git_url": "git://x/y.git"}`: "it is a submodule: make it a file",
		`{"type": "submodule", "name": ".forge.yml", "size": 0, "submodule_git_url": "x"}`:        "it is a submodule: make it a file",
	} {
		w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, contents) {
				fmt.Fprint(out, body)
			}
			return strings.Contains(r.URL.Path, contents)
		})
		answer, err := w.config(w.commit(githubsim.Commit{Files: map[string]string{"a": body}}))
		if err != nil || answer.GetInvalid().GetProblems()[0].GetMessage() != want {
			t.Errorf("got %v, error %v", answer, err)
		}
	}
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, contents) {
			out.WriteHeader(http.StatusForbidden)
			fmt.Fprint(out, `{"message": "too large", "errors": [{"resource": "Blob", "field": "data", "code": "too_large"}]}`)
		}
		return strings.Contains(r.URL.Path, contents)
	})
	answer, err := w.config(w.commit(githubsim.Commit{Files: map[string]string{"a": "giant"}}))
	if err != nil || !strings.Contains(answer.GetInvalid().GetProblems()[0].GetMessage(), "larger than 256 KiB") {
		t.Errorf("got %v, error %v", answer, err)
	}
}

func TestAbsentIsToldFromGone(t *testing.T) {
	w := newWorld(t)
	bare := w.commit(githubsim.Commit{Delete: []string{".forge.yml"}, Files: map[string]string{"README": "x"}})
	for range 2 {
		answer, err := w.config(bare)
		if err != nil || answer.GetAbsent() == nil {
			t.Fatalf("got %v, error %v", answer, err)
		}
	}
	if n := w.calls(contents); n != 1 {
		t.Errorf("absence is known, and yet %d calls", n)
	}
	_, err := w.config(strings.Repeat("1", 40))
	w.wantFault(err, fault.NotFound, "acme/app has no commit 1111")
	// A repository that was closed to the App answers as if nothing were there.
	w.front.answers("/repos/", 404, "Not Found")
	_, err = w.config(w.commit(githubsim.Commit{Files: map[string]string{"README": "y"}}))
	w.wantFault(err, fault.NotFound, "acme/app has no commit")
}

func TestForbiddenSaysWhatToDo(t *testing.T) {
	w := newWorld(t)
	w.hasToken()
	w.front.answers(contents, 403, "Resource not accessible by integration", "X-Accepted-GitHub-Permissions", "contents=read")
	sha := w.head()
	answer, err := w.config(sha)
	if err != nil || !strings.Contains(answer.GetForbidden().GetMessage(), "the App lacks the permission contents=read; grant it") {
		t.Fatalf("got %v, error %v", answer, err)
	}
	w.front.set(nil)
	if answer, err = w.config(sha); err != nil || answer.GetConfig() == nil {
		t.Errorf("granted since, and yet %v, error %v", answer, err)
	}
	w.repo = &eventv1.Repository{Id: 1, Owner: "stranger", Name: "app"}
	answer, err = w.config(sha)
	if err != nil || !strings.Contains(answer.GetForbidden().GetMessage(), "the GitHub App is not installed on stranger/app") {
		t.Errorf("got %v, error %v", answer, err)
	}
}

func TestTroubleIsNoAnswerAndNotKept(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	for name, trouble := range map[string]func(){
		"500":         func() { w.front.answers(contents, 500, "unicorn") },
		"502":         func() { w.front.answers(contents, 502, "bad gateway") },
		"rate limit":  func() { w.front.answers(contents, 429, "slow down", "Retry-After", "1") },
		"cut":         func() { w.front.cuts(contents, 100) },
		"always 401":  func() { w.front.answers(contents, 401, "Bad credentials") },
		"cut at once": func() { w.front.cuts(contents, 0) },
		"not JSON": func() {
			w.front.set(func(out http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(out, "<html>"); return true })
		},
		"half the JSON": func() {
			w.front.set(func(out http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(out, `{"type": `); return true })
		},
	} {
		trouble()
		if answer, err := w.config(sha); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, error %v (%v)", name, answer, err, fault.KindOf(err))
		}
		w.front.set(nil)
	}
	if answer, err := w.config(sha); err != nil || answer.GetConfig() == nil {
		t.Errorf("GitHub is well again, and yet %v, error %v", answer, err)
	}
}

// What GitHub refuses without a word about the file is no answer, and not kept:
// 409 and 422 are tried again while the commit is there, and are its end where
// it is not.
func TestRefusalsAreHeldAgainstTheCommit(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	for code, want := range map[int]fault.Kind{409: fault.Unavailable, 422: fault.Unavailable, 451: fault.NotFound} {
		w.front.answers(contents, code, "not today")
		_, err := w.config(sha)
		w.wantFault(err, want, "not today")
	}
	for _, code := range []int{404, 409, 422} {
		w.front.answers("/repos/acme/app/co", code, "not today") // /contents and /commits
		_, err := w.config(sha)
		w.wantFault(err, fault.NotFound, "acme/app has no commit "+sha)
		w.front.answers(contents, code, "No commit found for SHA: "+sha)
		_, err = w.config(sha)
		w.wantFault(err, fault.NotFound, "acme/app has no commit "+sha)
	}
	w.front.set(nil)
	if answer, err := w.config(sha); err != nil || answer.GetConfig() == nil {
		t.Errorf("GitHub is well again, and yet %v, error %v", answer, err)
	}
}

func TestTokenIsRenewedAfterA401(t *testing.T) {
	w := newWorld(t)
	var refused atomic.Value
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, contents) {
			return false
		}
		if first := refused.CompareAndSwap(nil, r.Header.Get("Authorization")); !first && refused.Load() != r.Header.Get("Authorization") {
			return false
		}
		out.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(out, `{"message": "Bad credentials"}`)
		return true
	})
	before := w.calls(tokenCalls)
	if answer, err := w.config(w.head()); err != nil || answer.GetConfig() == nil {
		t.Fatalf("got %v, error %v", answer, err)
	}
	if n := w.calls(tokenCalls) - before; n != 2 {
		t.Errorf("%d token requests", n)
	}
}

func TestAbbreviatedOrFoulShaIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, sha := range []string{"", "main", "3f2a", "../../etc/passwd", strings.Repeat("A", 40)} {
		_, err := w.config(sha)
		w.wantFault(err, fault.Invalid, "is not the full sha of a commit")
		_, err = w.source(sha)
		w.wantFault(err, fault.Invalid, "is not the full sha of a commit")
	}
}

func TestHostileFileIsNotKept(t *testing.T) {
	w := newWorld(t)
	sha := w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": "image: busybox\nexecute:\n- |\n  echo " + strings.Repeat("x", 200<<10)}})
	for range 2 {
		if answer, err := w.config(sha); err != nil || answer.GetConfig() == nil {
			t.Fatalf("error %v", err)
		}
	}
	if n := w.calls(contents); n != 2 {
		t.Errorf("%d calls", n)
	}
}
