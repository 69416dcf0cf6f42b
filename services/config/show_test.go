package config

import (
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestFileIsShownWithWhatForgeMakesOfIt(t *testing.T) {
	w := newWorld(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer admin")
	client := configv1.NewBuildConfigServiceClient(w.as("nobody"))
	show := func(ref string) (*configv1.ShowBuildConfigResponse, error) {
		return client.ShowBuildConfig(ctx, &configv1.ShowBuildConfigRequest{Repository: "acme/app", Ref: ref})
	}
	good := w.head()
	answer, err := show("")
	if err != nil || answer.GetSha() != good || answer.GetBranch() != "main" || answer.GetFile() != ".forge.yml" || answer.GetContent() != goodFile || answer.GetConfig().GetImage() != "busybox" {
		t.Errorf("a good file: %v, %v", answer, err)
	}

	// Whoever reloads a page does not use up what GitHub allows.
	calls := w.calls("/")
	for range 10 {
		if _, err := show(""); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.calls("/"); n != calls {
		t.Errorf("%d calls more", n-calls)
	}

	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": "image: busybox\nexceute: \xff\n"}})
	w.clock.Advance(shownKept)
	if answer, err = show("main"); err != nil || answer.GetInvalid() == nil || !strings.HasPrefix(answer.GetContent(), "image: busybox\nexceute: ") {
		t.Errorf("a broken file: %v, %v", answer, err)
	}
	if answer, err = show(good); err != nil || answer.GetConfig() == nil || answer.GetBranch() != "" || answer.GetSha() != good {
		t.Errorf("a commit: %v, %v", answer, err)
	}
	w.commit(githubsim.Commit{Files: map[string]string{"README": "x"}, Delete: []string{".forge.yml"}})
	w.clock.Advance(shownKept)
	if answer, err = show("main"); err != nil || answer.GetAbsent() == nil || answer.GetFile() != "" {
		t.Errorf("no file: %v, %v", answer, err)
	}

	_, err = show("no-such-branch")
	w.wantFault(err, fault.NotFound, "branch no-such-branch of acme/app")
	for _, bad := range []string{"", "acme", "acme/", "/app", "a/b/c"} {
		_, err := client.ShowBuildConfig(ctx, &configv1.ShowBuildConfigRequest{Repository: bad})
		w.wantFault(err, fault.Invalid, "name the repository as owner/name")
	}
}
