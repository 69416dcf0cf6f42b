package signin_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/signin/signintest"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func (w *world) shop(s *signin.Service, person int64) (signin.Repository, error) {
	return s.Repository(w.t.Context(), person, 0, "acme", "shop")
}

func TestGitHubIsAskedAsThePerson(t *testing.T) {
	w := onSQLite(t)
	w.must(w.sim.SetPermission("acme", "shop", "wes", "write"))
	w.must(w.sim.SetPermission("acme", "shop", "ada", "admin"))
	for login, want := range map[string]signin.Repository{
		"rita": {Read: true}, "wes": {Read: true, Write: true}, "ada": {Read: true, Write: true, Admin: true},
	} {
		v := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, login))
		got, err := w.shop(w.Service, v.ID)
		byID, errByID := w.Repository(t.Context(), v.ID, got.ID, "another", "name")
		want.ID, want.Owner, want.Name, want.Private = got.ID, "acme", "shop", true
		if err != nil || errByID != nil || got != want || byID != want || got.ID == 0 {
			t.Errorf("%s: %+v, %v; by id %+v, %v", login, got, err, byID, errByID)
		}
	}
	stan := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "stan"))
	if _, err := w.shop(w.Service, stan.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("stan: %v", err)
	}
	w.sim.SetTeamMember("acme", "ops", "stan", true)
	for team, want := range map[string]bool{"ops": true, "dev": false} {
		if in, err := w.InTeam(t.Context(), stan.ID, stan.Login, "acme", team); err != nil || in != want {
			t.Errorf("stan in %s: %v, %v", team, in, err)
		}
	}
}

func TestTokensAreRefreshedOnceForAllWhoAsk(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		v := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "rita"))
		others := []*signin.Service{w.Service, w.another(), w.another()}
		before := called(w, "POST /login/oauth/access_token")
		for round := range 3 {
			w.clock.Advance(8 * time.Hour)
			var asking sync.WaitGroup
			for n := range 12 {
				asking.Go(func() {
					if _, err := w.shop(others[n%len(others)], v.ID); err != nil {
						t.Error(err)
					}
				})
			}
			asking.Wait()
			if refreshed := called(w, "POST /login/oauth/access_token") - before; refreshed != round+1 {
				t.Fatalf("after %d ends there were %d refreshes", round+1, refreshed)
			}
		}
	})
}

func TestWhatGitHubHasTakenBackEndsTheSession(t *testing.T) {
	w := onSQLite(t)
	session := signintest.Cookie(t, w.Service, "rita")
	v := signintest.Seen(t, w.Service, session)
	_, token, err := w.MakeToken(t.Context(), v, "laptop", 0)
	w.must(err)
	w.sim.RevokeAuthorization("rita")
	if _, err := w.shop(w.Service, v.ID); !fault.Is(err, fault.Unauthenticated) || !strings.Contains(err.Error(), "sign in again") {
		t.Errorf("got %v", err)
	}
	if v := signintest.Seen(t, w.Service, session); v.ID != 0 || !v.Ended {
		t.Errorf("the session lives on: %+v", v)
	}
	if _, refused := signintest.Viewer(w.Service, bearing(token)); !fault.Is(refused, fault.Unauthenticated) {
		t.Errorf("the token lives on: %v", refused)
	}
	signintest.Cookie(t, w.Service, "rita") // who signs in again has the token of before again
	if v, err := signintest.Viewer(w.Service, bearing(token)); err != nil || v.Login != "rita" {
		t.Errorf("after signing in again: %+v, %v", v, err)
	}
}

// A token without an end, as of an App that has no expiry set, is not refreshed, and ends when it is taken back.
func TestWhatGitHubRefusesIsNotUsedAgain(t *testing.T) {
	w := onSQLite(t)
	v := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "rita"))
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET /repos/{owner}/{repo}", Status: http.StatusUnauthorized, Times: 1})
	if _, err := w.shop(w.Service, v.ID); err != nil { // one 401, and the refreshed token is good
		t.Error(err)
	}
	if refreshed := called(w, "POST /login/oauth/access_token"); refreshed != 2 {
		t.Errorf("tokens were handed out %d times", refreshed)
	}
}

func TestNothingIsSureWhileGitHubIsAway(t *testing.T) {
	w := onSQLite(t)
	session := signintest.Cookie(t, w.Service, "rita")
	v := signintest.Seen(t, w.Service, session)
	for name, away := range map[string]githubsim.Misbehaviour{
		"500":          {Route: "/repos/{owner}/{repo}", Status: http.StatusInternalServerError},
		"cut off":      {Route: "/repos/{owner}/{repo}", Cut: true},
		"rate limited": {Route: "/repos/{owner}/{repo}", Status: http.StatusTooManyRequests, RetryAfter: time.Hour},
	} {
		undo := w.sim.Misbehave(away)
		if _, err := w.shop(w.Service, v.ID); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "GitHub does not say what you may see") {
			t.Errorf("%s: %v", name, err)
		}
		undo()
	}
	// Nor while it does not refresh what has ended; nobody is signed out by that.
	w.clock.Advance(8 * time.Hour)
	undo := w.sim.Misbehave(githubsim.Misbehaviour{Route: "/login/oauth/access_token", Status: http.StatusBadGateway})
	if _, err := w.shop(w.Service, v.ID); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	undo()
	if _, err := w.shop(w.Service, v.ID); err != nil || signintest.Seen(t, w.Service, session).ID == 0 {
		t.Errorf("once it is back: %v", err)
	}
}

// A token that is good for some minutes still is used where it cannot be refreshed.
func TestATokenIsRefreshedBeforeItsEnd(t *testing.T) {
	w := onSQLite(t)
	v := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "rita"))
	w.clock.Advance(8*time.Hour - 4*time.Minute)
	undo := w.sim.Misbehave(githubsim.Misbehaviour{Route: "/login/oauth/access_token", Status: http.StatusBadGateway})
	if _, err := w.shop(w.Service, v.ID); err != nil {
		t.Error(err)
	}
	undo()
	if _, err := w.shop(w.Service, v.ID); err != nil || w.sim.UserTokens() != 1 {
		t.Errorf("%v, and %d tokens are good", err, w.sim.UserTokens())
	}
}

func TestAnotherKeyHasPeopleSignInAgain(t *testing.T) {
	w := onSQLite(t)
	v := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "rita"))
	w.deps.Keys = [][]byte{[]byte(strings.Repeat("b", 32)), w.deps.Keys[0]}
	if _, err := w.shop(w.another(), v.ID); err != nil {
		t.Errorf("with the old key behind the new: %v", err)
	}
	w.deps.Keys = w.deps.Keys[:1]
	if _, err := w.shop(w.another(), v.ID); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("without the old key: %v", err)
	}
}
