package signin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/signin/signintest"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestSomebodySignsInAndOut(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		page, cookies := signintest.Begin(t, w.Service, "/builds/7?log=0")
		if address, err := url.Parse(page); err != nil || !strings.HasPrefix(page, w.deps.GitHubURL+"/login/oauth/authorize?") ||
			address.Query().Get("code_challenge_method") != "S256" || len(address.Query().Get("state")) < 26 || address.Query().Get("redirect_uri") != callback {
			t.Fatalf("sent to %s", page)
		}
		to, session, err := signintest.Finish(w.Service, signintest.Leave(t, page, "rita"), cookies...)
		if err != nil || to != "/builds/7?log=0" {
			t.Fatalf("goes to %q, %v", to, err)
		}
		if session.Name != "__Host-forge_session" || !session.HttpOnly || !session.Secure || session.SameSite != http.SameSiteLaxMode || session.Path != "/" || session.Domain != "" {
			t.Errorf("the cookie is %+v", session)
		}
		v := signintest.Seen(t, w.Service, session)
		if v.Login != "rita" || v.ID == 0 || v.CSRF == "" || v.Admin || v.Ended {
			t.Errorf("got %+v", v)
		}
		if again := signintest.Seen(t, w.another(), session); again != v {
			t.Errorf("another replica sees %+v", again)
		}
		r, out := httptest.NewRequest(http.MethodPost, "/sign-out", nil), httptest.NewRecorder()
		r.AddCookie(session)
		w.must(w.SignOut(out, r))
		if v := signintest.Seen(t, w.Service, session); v.ID != 0 || !v.Ended {
			t.Errorf("after signing out: %+v", v)
		}
	})
}

// What is stored lets nobody in who reads it, and the log has no secrets.
func TestSecretsAreNeitherStoredNorLogged(t *testing.T) {
	w := onSQLite(t)
	session := signintest.Cookie(t, w.Service, "rita")
	v := signintest.Seen(t, w.Service, session)
	_, token, err := w.MakeToken(t.Context(), v, "laptop", 0)
	w.must(err)
	rows := &strings.Builder{}
	for _, query := range []string{"SELECT hash FROM sessions", "SELECT hash FROM personal_tokens", "SELECT CAST(sealed AS TEXT) FROM people", "SELECT hash FROM used_states"} {
		var text string
		w.must(w.deps.DB.Read().QueryRowContext(t.Context(), query).Scan(&text))
		rows.WriteString(text)
	}
	github := w.sim.Calls()
	if len(github) == 0 {
		t.Fatal("GitHub was not asked")
	}
	for _, secret := range []string{session.Value, token, "ghu_", "ghr_", "client-hush", v.CSRF} {
		if strings.Contains(rows.String(), secret) || strings.Contains(w.logs.String(), secret) {
			t.Errorf("%q is in the rows or in the log", secret)
		}
	}
	if !strings.Contains(w.logs.String(), "signed in") {
		t.Errorf("nothing says who signed in: %s", w.logs)
	}
}

// Each way to have a browser signed in that did not ask for it, or as somebody else.
func TestForgedAndRepeatedSignInsAreRefused(t *testing.T) {
	w := onSQLite(t)
	page, mine := signintest.Begin(t, w.Service, "/")
	otherPage, other := signintest.Begin(t, w.Service, "/")
	back, otherBack := signintest.Leave(t, page, "rita"), signintest.Leave(t, otherPage, "mallory")
	code := func(address, from string) string { // the address with the code of another
		a, err := url.Parse(address)
		w.must(err)
		b, err := url.Parse(from)
		w.must(err)
		query := a.Query()
		query.Set("code", b.Query().Get("code"))
		a.RawQuery = query.Encode()
		return a.String()
	}
	stale := *mine[0]
	stale.Value = "AAAA" + stale.Value[4:]
	for name, c := range map[string]struct {
		back    string
		cookies []*http.Cookie
	}{
		"login CSRF: no cookie":                {otherBack, nil},
		"login CSRF: another browser's cookie": {otherBack, mine},
		"another's code, by PKCE":              {code(back, otherBack), mine},
		"a broken cookie":                      {back, []*http.Cookie{&stale}},
		"no state":                             {callback + "?code=x", mine},
		"no code":                              {callback + "?state=" + stateOf(t, page), mine},
	} {
		if _, session, err := signintest.Finish(w.Service, c.back, c.cookies...); !fault.Is(err, fault.Invalid) || session != nil {
			t.Errorf("%s: %v, %v", name, session, err)
		}
	}
	denied := signintest.Leave(t, page, "rita", "decision", "deny")
	if _, session, err := signintest.Finish(w.Service, denied, mine...); !fault.Is(err, fault.Denied) || session != nil {
		t.Errorf("denied: %v, %v", session, err)
	}

	fresh := signintest.Leave(t, page, "rita") // the code of before is spent
	if _, session, err := signintest.Finish(w.Service, fresh, mine...); err != nil || session == nil {
		t.Fatalf("in good order: %v", err)
	}
	if _, session, err := signintest.Finish(w.Service, fresh, mine...); !fault.Is(err, fault.Invalid) || session != nil {
		t.Errorf("the same code again: %v, %v", session, err)
	}
	replayed := signintest.Leave(t, page, "rita") // a fresh code for a state that was used
	if _, session, err := signintest.Finish(w.Service, replayed, mine...); !fault.Is(err, fault.Invalid) || session != nil {
		t.Errorf("the same state again: %v, %v", session, err)
	}
	w.clock.Advance(10 * time.Minute)
	if _, session, err := signintest.Finish(w.Service, signintest.Leave(t, otherPage, "rita"), other...); !fault.Is(err, fault.Invalid) || session != nil {
		t.Errorf("too late: %v, %v", session, err)
	}
}

func stateOf(t *testing.T, page string) string {
	t.Helper()
	address, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	return address.Query().Get("state")
}

func TestASessionFromBeforeTheSignInIsWorthNothingAfterIt(t *testing.T) {
	w := onSQLite(t)
	planted := signintest.Cookie(t, w.Service, "mallory")
	page, cookies := signintest.Begin(t, w.Service, "/")
	_, session, err := signintest.Finish(w.Service, signintest.Leave(t, page, "rita"), append(cookies, planted)...)
	w.must(err)
	if session.Value == planted.Value || signintest.Seen(t, w.Service, planted).ID != 0 || signintest.Seen(t, w.Service, session).Login != "rita" {
		t.Error("the planted session lives on")
	}
}

func TestOnlyPathsOfThisForgeAreGoneTo(t *testing.T) {
	for to, want := range map[string]string{
		"/builds/7": "/builds/7", "/builds?state=failed&repository=a%2Fb": "/builds?state=failed&repository=a%2Fb", "/": "/", "": "/",
		"https://evil.example/": "/", "//evil.example": "/", "///evil.example": "/", `/\evil.example`: "/", `\\evil.example`: "/",
		"/\t/evil.example": "/", "/\n/evil.example": "/", "javascript:alert(1)": "/", "evil": "/", "http:/evil": "/", "/%2F/evil": "/",
		"/%2Fevil.example": "/", " /builds": "/", "/builds\r\nSet-Cookie: a=b": "/", "//user@evil.example/x": "/",
	} {
		if got := signin.Local(to); got != want {
			t.Errorf("Local(%q) = %q, want %q", to, got, want)
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		idle, used := signintest.Cookie(t, w.Service, "rita"), signintest.Cookie(t, w.Service, "rita")
		for range 5 { // days; GitHub's tokens are refreshed meanwhile, or not at all
			w.clock.Advance(24 * time.Hour)
			if signintest.Seen(t, w.Service, used).Login != "rita" {
				t.Fatal("a session ended that was used")
			}
		}
		w.clock.Advance(2 * 24 * time.Hour)
		if v := signintest.Seen(t, w.Service, idle); v.ID != 0 || !v.Ended {
			t.Errorf("after seven idle days: %+v", v)
		}
		for range 23 {
			signintest.Seen(t, w.Service, used)
			w.clock.Advance(24 * time.Hour)
		}
		if v := signintest.Seen(t, w.Service, used); v.ID != 0 || !v.Ended {
			t.Errorf("after thirty days: %+v", v)
		}
		ctx, cancel := context.WithCancel(t.Context())
		running := make(chan error, 1)
		go func() { running <- w.Run(ctx) }()
		eventually(t, func() bool { return count(t, w, "sessions")+count(t, w, "people")+count(t, w, "used_states") == 0 })
		cancel()
		w.must(<-running)
	})
}

func TestSigningOutEverywhereEndsAll(t *testing.T) {
	w := onSQLite(t)
	one, two, another := signintest.Cookie(t, w.Service, "rita"), signintest.Cookie(t, w.Service, "rita"), signintest.Cookie(t, w.Service, "wes")
	v := signintest.Seen(t, w.Service, one)
	_, token, err := w.MakeToken(t.Context(), v, "laptop", 0)
	w.must(err)
	w.must(w.SignOutEverywhere(t.Context(), v.ID))
	if signintest.Seen(t, w.Service, one).ID != 0 || signintest.Seen(t, w.Service, two).ID != 0 {
		t.Error("a session lives on")
	}
	if _, refused := signintest.Viewer(w.Service, bearing(token)); !fault.Is(refused, fault.Unauthenticated) {
		t.Errorf("a token lives on: %v", refused)
	}
	if signintest.Seen(t, w.Service, another).Login != "wes" {
		t.Error("somebody else was signed out")
	}
	if calls := called(w, "DELETE /applications/{client}/token"); calls != 1 {
		t.Errorf("GitHub was told %d times", calls)
	}
	// GitHub being away keeps nobody signed in.
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "DELETE /applications/{client}/token", Share: 1, Status: http.StatusBadGateway})
	w.must(w.SignOutEverywhere(t.Context(), signintest.Seen(t, w.Service, another).ID))
	if signintest.Seen(t, w.Service, another).ID != 0 {
		t.Error("a session lives on")
	}
}
