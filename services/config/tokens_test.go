package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const tokenCalls = "/access_tokens"

func (w *world) mustToken(room, rejected string) string {
	w.t.Helper()
	answer, err := w.token(room, rejected)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetToken()
}

func TestEachRoomGetsItsOwnNarrowToken(t *testing.T) {
	w := newWorld(t)
	want := map[string]map[string]string{
		roomConfig: {"metadata": "read", "contents": "read", "pull_requests": "read"},
		"reporter": {
			"metadata": "read", "contents": "read", "statuses": "write", "checks": "write",
			"deployments": "write", "pull_requests": "write",
		},
	}
	before := w.calls(tokenCalls)
	for room, permissions := range want {
		if room == roomConfig {
			if _, err := w.config(w.head()); err != nil {
				t.Fatal(err)
			}
		} else {
			w.mustToken(room, "")
		}
		calls := slices.DeleteFunc(w.sim.Calls(), func(c githubsim.Call) bool { return !strings.Contains(c.Path, tokenCalls) })
		last := calls[len(calls)-1]
		var asked struct {
			RepositoryIDs []int64           `json:"repository_ids"`
			Permissions   map[string]string `json:"permissions"`
		}
		if err := json.Unmarshal([]byte(last.Body), &asked); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(asked.Permissions, permissions) || fmt.Sprint(asked.RepositoryIDs) != fmt.Sprint([]int64{w.repo.GetId()}) {
			t.Errorf("%s asked for %s", room, last.Body)
		}
	}
	if calls := w.calls(tokenCalls) - before; calls != 2 {
		t.Errorf("%d tokens for two rooms", calls)
	}
}

func TestTokenAsksForNoMoreThanIsGranted(t *testing.T) {
	w := newWorld(t, func(sim *githubsim.Config, _ *Deps) {
		sim.Permissions = map[string]string{"metadata": "read", "contents": "write", "statuses": "write", "pull_requests": "read"}
	})
	w.mustToken("reporter", "")
	calls := w.sim.Calls()
	body := calls[len(calls)-1].Body
	if !strings.Contains(body, `"statuses":"write"`) || !strings.Contains(body, `"pull_requests":"read"`) ||
		!strings.Contains(body, `"contents":"read"`) || strings.Contains(body, "checks") {
		t.Errorf("asked for %s", body)
	}
}

func TestInstallationThatGrantsNothingGetsNoToken(t *testing.T) {
	w := newWorld(t)
	w.service.installations.known[w.install] = &configv1.Installation{Id: w.install, Account: "acme", Permissions: map[string]string{"issues": "write"}}
	w.front.set(func(out http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return false
		}
		fmt.Fprintf(out, `{"id": %d, "account": {"login": "acme"}, "permissions": {"issues": "write"}}`, w.install)
		return true
	})
	before := w.calls(tokenCalls)
	_, err := w.token("reporter", "")
	w.wantFault(err, fault.Denied, "installation of acme grants nothing that reporter needs")
	if w.calls(tokenCalls) != before {
		t.Error("GitHub was asked for a token, which without permissions named has them all")
	}
}

func TestTokenIsSharedUntilFiveMinutesBeforeItsEnd(t *testing.T) {
	w := newWorld(t)
	before := w.calls(tokenCalls)
	first := w.mustToken("reporter", "")
	w.clock.Advance(54 * time.Minute)
	if w.mustToken("reporter", "") != first {
		t.Error("renewed although it lasts")
	}
	w.clock.Advance(2 * time.Minute)
	if w.mustToken("reporter", "") == first {
		t.Error("not renewed before its end")
	}
	if n := w.calls(tokenCalls) - before; n != 2 {
		t.Errorf("%d token requests", n)
	}
}

func TestRejectedTokenIsNeverHandedOutAgain(t *testing.T) {
	w := newWorld(t)
	first := w.mustToken("reporter", "")
	second := w.mustToken("reporter", first)
	if second == first || w.mustToken("reporter", first) != second {
		t.Error("the rejected token is not replaced once")
	}
}

func TestOneTokenRequestHoweverManyAsk(t *testing.T) {
	w := newWorld(t)
	before := w.calls(tokenCalls)
	client := configv1.NewTokenServiceClient(w.as("reporter"))
	var wait sync.WaitGroup
	for range 200 {
		wait.Go(func() {
			if _, err := client.CreateToken(t.Context(), &configv1.CreateTokenRequest{Repository: w.repo}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := w.calls(tokenCalls) - before; n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func TestSuspendedInstallationGetsNoToken(t *testing.T) {
	w := newWorld(t)
	had := w.mustToken("reporter", "")
	suspended := func(out http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, tokenCalls) {
			out.WriteHeader(http.StatusForbidden)
			fmt.Fprint(out, `{"message": "This installation has been suspended"}`)
		} else {
			fmt.Fprintf(out, `{"id": %d, "account": {"login": "acme"}, "html_url": "https://github.com/settings/installations/1",
				"permissions": {"metadata": "read"}, "suspended_at": "2026-11-23T10:00:00Z"}`, w.install)
		}
		return true
	}
	w.front.set(suspended)
	// Whether GitHub says so when asked for a token, or by event before.
	_, err := w.token("reporter", had)
	w.wantFault(err, fault.Conflict, "installation of acme is suspended: an owner can resume it at https://github.com/settings/installations/1")
	_, err = w.token("reporter", "")
	w.wantFault(err, fault.Conflict, "installation of acme is suspended")
	answer, err := w.config(w.head())
	if err != nil || !strings.Contains(answer.GetForbidden().GetMessage(), "installation of acme is suspended") {
		t.Errorf("got %v, error %v", answer, err)
	}
	w.front.set(nil)
	if _, err := w.event(&eventv1.Event{InstallationId: w.install, Payload: &eventv1.Event_Installation{Installation: &eventv1.InstallationEvent{}}}); err != nil {
		t.Fatal(err)
	}
	w.mustToken("reporter", "")
}

func TestTokenRefusals(t *testing.T) {
	w := newWorld(t)
	had := w.mustToken("reporter", "") // the installation is known
	stranger := &eventv1.Repository{Id: 4711, Owner: "acme", Name: "gone"}
	for name, c := range map[string]struct {
		room string
		repo *eventv1.Repository
		act  func()
		kind fault.Kind
		text string
	}{
		"a room without rights":     {room: "scheduler", repo: w.repo, kind: fault.Denied, text: "reporter"},
		"nobody":                    {room: "", repo: w.repo, kind: fault.Denied, text: "reporter"},
		"no repository":             {room: "reporter", kind: fault.Invalid, text: "lacks its owner or name"},
		"not installed":             {room: "reporter", repo: &eventv1.Repository{Owner: "x", Name: "y"}, kind: fault.NotFound, text: "not installed on x/y"},
		"not one of the owner's":    {room: "reporter", repo: stranger, kind: fault.NotFound, text: "not installed on acme/gone"},
		"GitHub is down":            {room: "reporter", repo: w.repo, act: func() { w.front.answers(tokenCalls, 500, "oops") }, kind: fault.Unavailable, text: "GitHub had trouble"},
		"GitHub is slow on purpose": {room: "reporter", repo: w.repo, act: func() { w.front.answers(tokenCalls, 403, "slow down", "Retry-After", "7") }, kind: fault.Unavailable, text: "slow down for 7s"},
		"the App is not accepted":   {room: "reporter", repo: w.repo, act: func() { w.front.answers(tokenCalls, 401, "A JSON web token could not be decoded") }, kind: fault.Unavailable, text: "GitHub does not accept the App's key"},
		"the App was taken away":    {room: "reporter", repo: w.repo, act: func() { w.front.answers(tokenCalls, 404, "Not Found") }, kind: fault.NotFound, text: "Not Found"},
		"GitHub is of two minds":    {room: "reporter", repo: w.repo, act: func() { w.front.answers(tokenCalls, 409, "Conflict") }, kind: fault.Conflict, text: "Conflict"},
		"more than is granted": {room: "reporter", repo: w.repo, act: func() {
			w.front.answers(tokenCalls, 422, "The permissions requested are not granted to this installation.")
		}, kind: fault.Invalid, text: "are not granted to this installation"},
		"the connection is cut": {room: "reporter", repo: w.repo, act: func() { w.front.cuts(tokenCalls, 10) }, kind: fault.Unavailable, text: "GitHub"},
	} {
		w.front.set(nil)
		if c.act != nil {
			c.act()
		}
		_, err := configv1.NewTokenServiceClient(w.as(c.room)).CreateToken(t.Context(), &configv1.CreateTokenRequest{Repository: c.repo, RejectedToken: had})
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v (%v), want %v with %q", name, err, fault.KindOf(err), c.kind, c.text)
		}
		if known := w.service.byAccount(); len(known) != 1 {
			t.Errorf("%s: installations known afterwards are %v", name, known)
		}
	}
}

func TestAdminTokenOpensNoToken(t *testing.T) {
	w := newWorld(t)
	ctx, _ := w.admin()
	_, err := configv1.NewTokenServiceClient(w.as("")).CreateToken(ctx, &configv1.CreateTokenRequest{Repository: w.repo})
	w.wantFault(err, fault.Denied, "only these rooms may make this call: reporter")
}

func TestRepositoryNamedWithoutIDGetsItsToken(t *testing.T) {
	w := newWorld(t)
	w.repo = &eventv1.Repository{Owner: "Acme", Name: "App"}
	first := w.mustToken("reporter", "")
	w.repo = &eventv1.Repository{Owner: "acme", Name: "app"}
	if w.mustToken("reporter", "") != first {
		t.Error("case makes two of one repository")
	}
}

// A token that GitHub ends after seconds, while config takes it for good, costs a
// 401 and a new token, and whoever asked notices nothing.
func TestTokensThatLastSecondsServeAllTheSame(t *testing.T) {
	github := kittest.NewClock(time.Now())
	w := newWorld(t, func(sim *githubsim.Config, deps *Deps) {
		sim.TokenLife, sim.Now = 5*time.Second, github.Now
		deps.Now = func() time.Time { return time.Now().Add(-time.Hour) } // so that a few seconds look like plenty
	})
	first := w.head()
	base := w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	sha, number := w.propose("docs", write("README"))
	if _, err := w.config(first); err != nil { // which has a token now
		t.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"config": func() error { _, err := w.config(base); return err },
		"source": func() error { _, err := w.source(base); return err },
		"files": func() error {
			answer, err := w.changes(sha, number, "")
			if err == nil && !answer.GetNoMatchingPaths() {
				err = fmt.Errorf("got %v", answer)
			}
			return err
		},
	} {
		before := w.calls(tokenCalls)
		github.Advance(6 * time.Second)
		if err := ask(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := w.calls(tokenCalls) - before; n != 1 {
			t.Errorf("%s: %d token requests, want 1", name, n)
		}
	}
}

// For some seconds GitHub answers 403 to a token that it has just made. That is no
// decision, and not worth another token.
func TestTokenThatWasJustMadeIsNoRefusal(t *testing.T) {
	github := kittest.NewClock(time.Now())
	w := newWorld(t, func(sim *githubsim.Config, _ *Deps) { sim.Now = github.Now })
	w.sim.SetTokenLag(3 * time.Second)
	w.commit(githubsim.Commit{Files: map[string]string{".forge.yml": pathsFile}})
	base := w.head()
	sha, number := w.propose("docs", write("README"))
	reads := w.reads(base, sha, int32(number), "octocat", nil)
	reads["list"] = func() error { _, err := w.changedSince(github.Now().Add(-time.Hour), false); return err }
	before := w.calls(tokenCalls)
	for name, read := range reads {
		w.wantFault(read(), fault.Unavailable, "GitHub may not know yet what a token that was just made allows")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if n := w.calls(tokenCalls) - before; n != 2 { // one of the repository, one of the installation
		t.Errorf("%d token requests, want 2", n)
	}
	github.Advance(3 * time.Second)
	w.sim.SetTokenLag(0)
	for name, read := range reads {
		if err := read(); err != nil {
			t.Errorf("%s once the token is known: %v", name, err)
		}
	}
	w.front.answers(contents, 403, "Resource not accessible by integration")
	w.clock.Advance(kitgithub.TokenLag)
	if answer, err := w.config(w.commit(write("more"))); err != nil || answer.GetForbidden() == nil {
		t.Errorf("a refusal of an older token: %v, error %v", answer, err)
	}
}

func TestOtherRefusalsOfANewTokenCount(t *testing.T) {
	w := newWorld(t)
	for message, want := range map[string]fault.Kind{
		"Repository access blocked":            fault.Denied,
		"This installation has been suspended": fault.Denied,
		"API rate limit exceeded":              fault.Unavailable,
	} {
		w.front.answers("/tarball/", 403, message)
		_, err := w.source(w.head())
		if !fault.Is(err, want) || strings.Contains(err.Error(), "just made") {
			t.Errorf("%s: %v", message, err)
		}
	}
}
