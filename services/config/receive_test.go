package config

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

func (w *world) installationEvent(action string) *eventv1.Event {
	return &eventv1.Event{
		Name: "installation", Action: action, InstallationId: w.install,
		Payload: &eventv1.Event_Installation{Installation: &eventv1.InstallationEvent{Account: &eventv1.Account{Login: "acme"}}},
	}
}

// gitHubSays has GitHub answer what it knows of the installation.
func (w *world) gitHubSays(status int, body string) {
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/app/installations/") && r.Method == http.MethodGet {
			out.WriteHeader(status)
			fmt.Fprint(out, body)
			return true
		}
		return false
	})
}

func (w *world) wantDecision(e *eventv1.Event, reason eventv1.Reason, text string) {
	w.t.Helper()
	got, err := w.event(e)
	if err != nil || got.GetReason() != reason || got.GetText() != text {
		w.t.Errorf("got %v, error %v, want %q", got, err, text)
	}
}

const tookNote = eventv1.Reason_REASON_NOTED

func TestInstallationEventIsAReasonToLook(t *testing.T) {
	w := newWorld(t)
	w.wantDecision(w.installationEvent("created"), tookNote, "installation of acme learnt")
	if len(w.service.installations.all()) != 1 {
		t.Error("not learnt")
	}
	w.gitHubSays(200, fmt.Sprintf(`{"id": %d, "account": {"login": "acme"}, "suspended_at": "2026-11-23T10:00:00Z"}`, w.install))
	w.wantDecision(w.installationEvent("suspend"), tookNote, "installation of acme suspended")
	_, err := w.token("reporter", "")
	w.wantFault(err, fault.Conflict, "suspended")
	// A late delivery of the suspension does not bring it back.
	w.gitHubSays(200, fmt.Sprintf(`{"id": %d, "account": {"login": "acme"}, "permissions": {"metadata": "read"}}`, w.install))
	w.wantDecision(w.installationEvent("suspend"), tookNote, "installation of acme learnt")
	if _, err := w.token("reporter", ""); err != nil {
		t.Errorf("resumed, and yet: %v", err)
	}
	w.gitHubSays(404, `{"message": "Not Found"}`)
	w.wantDecision(w.installationEvent("deleted"), tookNote, "installation of acme removed")
	if len(w.service.installations.all()) != 0 {
		t.Error("still known")
	}
	w.gitHubSays(500, `{"message": "unicorn"}`)
	_, err = w.event(w.installationEvent("created"))
	w.wantFault(err, fault.Unavailable, "GitHub had trouble")
}

func TestNewPermissionsTakeEffectAtOnce(t *testing.T) {
	w := newWorld(t)
	old := w.mustToken("reporter", "")
	w.wantDecision(w.installationEvent("new_permissions_accepted"), tookNote, "installation of acme learnt")
	if w.mustToken("reporter", "") == old {
		t.Error("a token with the old permissions is still handed out")
	}
}

func TestRemovedRepositoryLosesItsTokens(t *testing.T) {
	w := newWorld(t)
	w.mustToken("reporter", "")
	w.wantDecision(&eventv1.Event{
		Name: "installation_repositories", Action: "removed", InstallationId: w.install,
		Payload: &eventv1.Event_InstallationRepositories{InstallationRepositories: &eventv1.InstallationRepositoriesEvent{
			Account: &eventv1.Account{Login: "acme"}, Removed: []*eventv1.Repository{w.repo},
		}},
	}, tookNote, "installation of acme learnt: repositories added 0, removed 1")
	if n := len(w.service.tokens.cached); n != 0 {
		t.Errorf("%d tokens left", n)
	}
}

func TestChangedRepositoryLosesWhatWasCached(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	byID := w.mustToken("reporter", "")
	named := &eventv1.Repository{Owner: "acme", Name: "app"}
	byName := func() string {
		whole := w.repo
		defer func() { w.repo = whole }()
		w.repo = named
		return w.mustToken("reporter", "")
	}
	oldName := byName()
	if _, err := w.config(sha); err != nil {
		t.Fatal(err)
	}
	renamed := &eventv1.Repository{Id: w.repo.GetId(), Owner: "acme", Name: "web"}
	w.wantDecision(&eventv1.Event{
		Name: "repository", Action: "renamed", InstallationId: w.install, Repository: renamed,
		Payload: &eventv1.Event_RepositoryChanged{RepositoryChanged: &eventv1.RepositoryEvent{PreviousName: "app"}},
	}, tookNote, "repository acme/web renamed: what was cached of it is dropped")
	if w.mustToken("reporter", "") == byID || byName() == oldName {
		t.Error("a token outlived the change")
	}
	if _, err := w.config(sha); err != nil || w.calls(contents) != 2 {
		t.Errorf("%d calls, error %v", w.calls(contents), err)
	}
	w.wantDecision(&eventv1.Event{
		Name: "repository", Action: "transferred", InstallationId: w.install, Repository: renamed,
		Payload: &eventv1.Event_RepositoryChanged{RepositoryChanged: &eventv1.RepositoryEvent{PreviousOwner: "old"}},
	}, tookNote, "repository acme/web transferred: what was cached of it is dropped")
}

func TestPushCostsNoCallForWhatIsKnown(t *testing.T) {
	w := newWorld(t)
	sha := w.head()
	if _, err := w.config(sha); err != nil {
		t.Fatal(err)
	}
	w.wantDecision(&eventv1.Event{Name: "push", Repository: w.repo, Payload: &eventv1.Event_Push{Push: &eventv1.PushEvent{}}},
		tookNote, "nothing to drop: what is cached of acme/app belongs to commits")
	if _, err := w.config(sha); err != nil || w.calls(contents) != 1 {
		t.Errorf("%d calls, error %v", w.calls(contents), err)
	}
}

func TestOtherEventsAreIgnored(t *testing.T) {
	w := newWorld(t)
	w.wantDecision(&eventv1.Event{Name: "star", Payload: &eventv1.Event_Other{Other: &eventv1.OtherEvent{}}},
		eventv1.Reason_REASON_EVENT_IGNORED, "ignored: event star")
	w.wantDecision(&eventv1.Event{Name: "check_run"}, eventv1.Reason_REASON_EVENT_IGNORED, "ignored: event check_run")
	_, err := w.event(nil)
	w.wantFault(err, fault.Invalid, "lacks its event")
}
