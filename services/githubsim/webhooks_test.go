package githubsim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestEachChangeIsToldInOrder(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(newRepository("acme", "second")))
	number := w.pull("feature")
	w.commit("feature", map[string]string{"more": "more\n"})
	w.must(w.sim.ClosePullRequest("acme", "shop", number))
	w.must(w.sim.ReopenPullRequest("acme", "shop", number))
	merged, err := w.sim.Merge("acme", "shop", number)
	w.must(err)
	w.sim.Ping()
	w.commit("main", map[string]string{"x": "x"})
	_, err = w.sim.Commit("zeta", "other", "main", githubsim.Commit{Message: "nobody is told"})
	w.must(err)
	w.settle()

	var got []string
	for _, event := range w.hooks.take(t) {
		switch e := event.(type) {
		case *github.InstallationEvent:
			got = append(got, fmt.Sprintf("installation %s %s %d", e.GetAction(), e.GetInstallation().GetAccount().GetLogin(), len(e.Repositories)))
		case *github.InstallationRepositoriesEvent:
			got = append(got, "installation_repositories "+e.GetAction()+" "+e.RepositoriesAdded[0].GetFullName())
		case *github.PushEvent:
			got = append(got, fmt.Sprintf("push %s created=%t commits=%d", e.GetRef(), e.GetCreated(), len(e.Commits)))
		case *github.PullRequestEvent:
			got = append(got, fmt.Sprintf("pull_request %s merged=%t", e.GetAction(), e.GetPullRequest().GetMerged()))
			if e.GetInstallation().GetID() != w.installation || e.GetRepo().GetFullName() != "acme/shop" || e.GetOrganization().GetLogin() != "acme" || e.GetSender() == nil {
				t.Errorf("%s lacks its installation, repository, organization or sender", e.GetAction())
			}
			if e.GetPullRequest().GetMerged() && e.GetPullRequest().GetMergeCommitSHA() != merged {
				t.Errorf("got merge commit %s, want %s", e.GetPullRequest().GetMergeCommitSHA(), merged)
			}
			if e.GetAction() == "synchronize" && (e.GetAfter() != e.GetPullRequest().GetHead().GetSHA() || e.GetBefore() == e.GetAfter()) {
				t.Errorf("synchronize from %s to %s", e.GetBefore(), e.GetAfter())
			}
		case *github.PingEvent:
			got = append(got, "ping "+e.GetHook().GetType())
		}
	}
	want := []string{
		"installation created acme 1",
		"installation_repositories added acme/second",
		"push refs/heads/feature created=true commits=0",
		"push refs/heads/feature created=false commits=1",
		"pull_request opened merged=false",
		"push refs/heads/feature created=false commits=1",
		"pull_request synchronize merged=false",
		"pull_request closed merged=false",
		"pull_request reopened merged=false",
		"push refs/heads/main created=false commits=3",
		"pull_request closed merged=true",
		"ping App",
		"push refs/heads/main created=false commits=1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestDeliveriesCarryGitHubsHeaders(t *testing.T) {
	w := newWorld(t)
	w.settle()
	got := w.hooks.headers[0]
	for name, want := range map[string]string{
		"X-GitHub-Event": "installation", "X-GitHub-Hook-Installation-Target-ID": "4711", "Content-Type": "application/json",
		"X-GitHub-Hook-Installation-Target-Type": "integration",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: got %q, want %q", name, got.Get(name), want)
		}
	}
	for _, name := range []string{"X-GitHub-Delivery", "X-GitHub-Hook-ID", "X-Hub-Signature", "X-Hub-Signature-256", "User-Agent"} {
		if got.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
}

func TestDeliveriesAreRecordedAndRedelivered(t *testing.T) {
	w := newWorld(t)
	w.settle()
	w.hooks.take(t)
	w.hooks.answer(http.StatusServiceUnavailable)
	w.pull("feature") // push, opened
	w.settle()
	w.hooks.answer(http.StatusOK)
	w.hooks.take(t)

	app, ctx := w.app(), t.Context()
	var all []*github.HookDelivery
	for cursor := ""; ; {
		some, answer, err := app.Apps.ListHookDeliveries(ctx, &github.ListCursorOptions{PerPage: 3, Cursor: cursor})
		w.must(err)
		all = append(all, some...)
		if cursor = answer.Cursor; cursor == "" {
			break
		}
	}
	if len(all) != 4 || all[0].GetEvent() != "pull_request" || all[0].GetAction() != "opened" || all[0].GetStatusCode() != http.StatusServiceUnavailable || all[3].GetStatus() != "OK" {
		t.Fatalf("got %v", all)
	}
	failed, _, err := app.Apps.GetHookDelivery(ctx, all[0].GetID())
	w.must(err)
	payload, err := failed.ParseRequestPayload()
	if opened, isOpened := payload.(*github.PullRequestEvent); err != nil || !isOpened || opened.GetNumber() != 1 {
		t.Errorf("got payload %v, error %v", payload, err)
	}
	_, _, err = app.Apps.RedeliverHookDelivery(ctx, all[0].GetID())
	if accepted := (*github.AcceptedError)(nil); !errors.As(err, &accepted) {
		t.Fatalf("redelivery: got %v, want 202", err)
	}
	list := w.settle()
	last := list[len(list)-1]
	if !last.Redelivery || last.GUID != failed.GetGUID() || last.ID == failed.GetID() || last.StatusCode != http.StatusOK {
		t.Errorf("got %+v", last)
	}
	if events := w.hooks.take(t); len(events) != 1 {
		t.Errorf("got %d events, want the one redelivered", len(events))
	}
	_, _, err = app.Apps.GetHookDelivery(ctx, 999_999)
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func TestUnreachableWebhookIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.sim.SetWebhook("http://"+kittest.FreeAddress(t), secret)
	w.sim.Ping()
	list := w.settle()
	if last := list[len(list)-1]; last.Status != "failed to connect to host" || last.StatusCode != 0 {
		t.Errorf("got %+v", last)
	}
	w.sim.SetWebhook("", "")
	w.sim.Ping()
	if again := w.settle(); len(again) != len(list) {
		t.Error("an App without a webhook was told something")
	}
}

// eventful does in acme/shop one of each thing that the App is told of.
func (w *world) eventful() {
	w.t.Helper()
	number := w.pull("feature")
	head := w.commit("feature", map[string]string{"more": "more\n"})
	w.must(w.sim.Label("acme", "shop", number, "bug", true))
	_, err := w.sim.Comment("acme", "shop", number, "mona", "/forge retest")
	w.must(err)
	run, _, err := w.shop().Checks.CreateCheckRun(w.t.Context(), "acme", "shop", github.CreateCheckRunOptions{
		Name: "Forge / test", HeadSHA: head, Actions: []*github.CheckRunAction{{Label: "Cancel", Description: "Stop it", Identifier: "cancel"}},
	})
	w.must(err)
	w.must(w.sim.RequestAction("acme", "shop", run.GetID(), "cancel", ""))
	w.must(w.sim.RerequestCheckRun("acme", "shop", run.GetID(), ""))
	w.must(w.sim.RerequestCheckSuite("acme", "shop", head, ""))
	w.must(w.sim.Enqueue("acme", "shop", number))
	w.must(w.sim.ClosePullRequest("acme", "shop", number))
	w.must(w.sim.ReopenPullRequest("acme", "shop", number))
	_, err = w.sim.Merge("acme", "shop", number)
	w.must(err)
	w.must(w.sim.CreateTag("acme", "shop", "v1", "main"))
	w.must(w.sim.DeleteTag("acme", "shop", "v1"))
	w.must(w.sim.RenameRepository("acme", "shop", "store"))
	w.must(w.sim.AddRepository(newRepository("acme", "second")))
	w.must(w.sim.RemoveFromInstallation("acme", "second"))
	w.must(w.sim.SuspendInstallation("acme"))
	w.must(w.sim.UnsuspendInstallation("acme"))
	w.sim.AddInstallation("octo")
	w.must(w.sim.Fork("acme", "store", "mona"))
	w.must(w.sim.TransferRepository("mona", "store", "octo"))
	w.must(w.sim.Uninstall("acme"))
}

// Whatever a payload after GitHub's documentation says, ours must say too, but for the permissions of an App that asked
// for others.
func TestPayloadsHaveTheDocumentedShape(t *testing.T) {
	if compared := haveTheShapeOf(t, kittest.ExamplePayloads(t)); compared < 20 {
		t.Errorf("compared %d kinds only", compared)
	}
}

func TestPayloadsHaveTheShapeOfRealOnes(t *testing.T) {
	kittest.Require(t, "payloads")
	t.Logf("compared with real ones: %d kinds", haveTheShapeOf(t, kittest.RealPayloads(t)))
}

// haveTheShapeOf returns how many kinds of payload stood on both sides.
func haveTheShapeOf(t *testing.T, samples map[string][]byte) int {
	t.Helper()
	w := newWorld(t)
	w.eventful()
	compared := map[string]bool{}
	for _, d := range w.settle() {
		name := d.Event
		if d.Action != "" {
			name += "." + d.Action
		}
		sample, there := samples[name]
		if !there {
			continue
		}
		compared[name] = true
		var theirs, ours any
		w.must(json.Unmarshal(sample, &theirs))
		w.must(json.Unmarshal(d.Payload, &ours))
		for _, missing := range lacking("", theirs, ours) {
			if !strings.Contains(missing, ".permissions.") {
				t.Errorf("%s lacks %s", name, missing)
			}
		}
	}
	return len(compared)
}

// lacking lists the paths that theirs has and ours has not.
func lacking(path string, theirs, ours any) []string {
	switch theirs := theirs.(type) {
	case map[string]any:
		ours, isObject := ours.(map[string]any)
		if !isObject {
			return []string{path}
		}
		var missing []string
		for name, value := range theirs {
			said, there := ours[name]
			if !there {
				missing = append(missing, path+"."+name)
			} else if value != nil && said != nil {
				missing = append(missing, lacking(path+"."+name, value, said)...)
			}
		}
		return missing
	case []any:
		ours, isList := ours.([]any)
		if !isList {
			return []string{path}
		}
		if len(theirs) > 0 && len(ours) > 0 {
			return lacking(path+"[]", theirs[0], ours[0])
		}
	}
	return nil
}

func TestReleaseSendsWhatGitHubSends(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.CreateTag("acme", "shop", "v1", "main"))
	w.settle()
	w.hooks.take(t)
	w.must(w.sim.PublishRelease("acme", "shop", githubsim.Release{Tag: "v1", Name: "The first", Prerelease: true}))
	w.settle()
	var actions []string
	for _, e := range w.hooks.take(t) {
		release := e.(*github.ReleaseEvent)
		actions = append(actions, release.GetAction())
		if r := release.GetRelease(); r.GetTagName() != "v1" || r.GetName() != "The first" || !r.GetPrerelease() || r.GetDraft() {
			t.Errorf("got %.300v", release)
		}
	}
	if want := []string{"created", "published", "prereleased"}; !slices.Equal(actions, want) {
		t.Errorf("sent %v, want %v", actions, want)
	}
	if err := w.sim.PublishRelease("acme", "shop", githubsim.Release{Tag: "v2"}); err == nil || err.Error() != "publish a release of acme/shop: there is no tag v2" {
		t.Errorf("got error %v", err)
	}
}
