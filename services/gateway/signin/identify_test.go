package signin_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/signin/signintest"
	"github.com/forge-ci/forge/services/kit/fault"
)

// Another site can have a browser send requests with the cookie. None of them changes anything.
func TestOtherSitesChangeNothing(t *testing.T) {
	w := onSQLite(t)
	session := signintest.Cookie(t, w.Service, "rita")
	v := signintest.Seen(t, w.Service, session)
	other := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "mallory"))
	for name, c := range map[string]struct {
		header http.Header
		form   url.Values
		good   bool
	}{
		"this page, by a script":           {header: http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {external}, signin.CSRFHeader: {v.CSRF}}, good: true},
		"this page, by a form":             {header: http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {external}}, form: url.Values{signin.CSRFField: {v.CSRF}}, good: true},
		"an old browser":                   {header: http.Header{"Origin": {external}, signin.CSRFHeader: {v.CSRF}}, good: true},
		"no token":                         {header: http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {external}}},
		"an empty token":                   {header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, form: url.Values{signin.CSRFField: {""}}},
		"another session's token":          {header: http.Header{"Sec-Fetch-Site": {"same-origin"}, signin.CSRFHeader: {other.CSRF}}},
		"another site that has the token":  {header: http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}, signin.CSRFHeader: {v.CSRF}}},
		"a neighbour that has the token":   {header: http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {"https://evil.forge.example"}}, form: url.Values{signin.CSRFField: {v.CSRF}}},
		"another site, by an old browser":  {header: http.Header{"Origin": {"https://evil.example"}, signin.CSRFHeader: {v.CSRF}}},
		"a page of no origin":              {header: http.Header{"Origin": {"null"}, signin.CSRFHeader: {v.CSRF}}},
		"a form with the token in its URL": {header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, form: url.Values{"a": {"b"}}},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			r := httptest.NewRequest(method, "/v1/builds/7:cancel?csrf="+v.CSRF, strings.NewReader(c.form.Encode()))
			r.Header = c.header.Clone()
			if c.form != nil {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if method == http.MethodDelete {
					continue // no form has it
				}
			}
			r.AddCookie(session)
			got, err := signintest.Viewer(w.Service, r)
			if c.good != (err == nil) || c.good && got.Login != "rita" || !c.good && !fault.Is(err, fault.Denied) {
				t.Errorf("%s, %s: %+v, %v", name, method, got, err)
			}
		}
	}
}

func TestWhoShowsWhat(t *testing.T) {
	w := onSQLite(t)
	session := signintest.Cookie(t, w.Service, "rita")
	v := signintest.Seen(t, w.Service, session)
	made, token, err := w.MakeToken(t.Context(), v, " laptop ", 0)
	w.must(err)
	if made.Name != "laptop" || !strings.HasPrefix(token, signin.TokenPrefix) || made.Ends.Sub(made.Made) != 90*24*time.Hour {
		t.Errorf("made %+v, %s", made, token)
	}
	with := func(authorization string, cookies ...*http.Cookie) *http.Request {
		r := bearing("")
		r.Header.Set("Authorization", authorization)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		return r
	}
	for name, c := range map[string]struct {
		r    *http.Request
		want signin.Viewer
		kind fault.Kind // of the refusal; Internal: none
	}{
		"nobody":                     {r: httptest.NewRequest(http.MethodGet, "/", nil)},
		"the admin":                  {r: with("Bearer " + admin), want: signin.Viewer{Admin: true}},
		"the admin with a cookie":    {r: with("bearer "+admin, session), want: signin.Viewer{Admin: true}},
		"a wrong admin token":        {r: with("Bearer adm-husx")},
		"a wrong token and a cookie": {r: with("Bearer adm-husx", session)},
		"another scheme":             {r: with("Basic " + admin)},
		"a token":                    {r: with("Bearer " + token), want: signin.Viewer{ID: v.ID, Login: "rita"}},
		"a token that is none":       {r: with("Bearer " + signin.TokenPrefix + "x"), kind: fault.Unauthenticated},
		"the hash of a token":        {r: with("Bearer " + signin.TokenPrefix + made.ID), kind: fault.Unauthenticated},
		"a session as a token":       {r: with("Bearer " + session.Value)},
		"a token as a session":       {r: withCookie(session.Name, token), want: signin.Viewer{Ended: true}},
		"a cookie that is none":      {r: withCookie(session.Name, "x"), want: signin.Viewer{Ended: true}},
		"a cookie without the host":  {r: withCookie("forge_session", session.Value)},
	} {
		got, err := signintest.Viewer(w.Service, c.r)
		if c.kind != fault.Internal {
			if !fault.Is(err, c.kind) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || got.ID != c.want.ID || got.Login != c.want.Login || got.Admin != c.want.Admin || got.Ended != c.want.Ended || got.CSRF != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// A token of one's own goes no further than here.
	passed := "nothing"
	w.Identify(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passed = r.Header.Get("Authorization") }), nil).
		ServeHTTP(httptest.NewRecorder(), with("Bearer "+token))
	if passed != "" {
		t.Error("the token is passed on")
	}
}

func withCookie(name, value string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(&http.Cookie{Name: name, Value: value})
	return r
}

func TestTokensEndAndAreDeletedByTheirOwnerAlone(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		rita := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "rita"))
		wes := signintest.Seen(t, w.Service, signintest.Cookie(t, w.Service, "wes"))
		for _, name := range []string{"", "  ", "two\nlines", strings.Repeat("x", 101), "\xff"} {
			if _, _, err := w.MakeToken(t.Context(), rita, name, 0); !fault.Is(err, fault.Invalid) {
				t.Errorf("name %q: %v", name, err)
			}
		}
		if _, _, err := w.MakeToken(t.Context(), rita, "for ever", 367*24*time.Hour); !fault.Is(err, fault.Invalid) {
			t.Errorf("a longer life: %v", err)
		}
		short, secret, err := w.MakeToken(t.Context(), rita, "a day", 24*time.Hour)
		w.must(err)
		_, other, err := w.MakeToken(t.Context(), rita, "long", 0)
		w.must(err)
		if err := w.DeleteToken(t.Context(), wes, short.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("wes deletes rita's: %v", err)
		}
		if _, err := signintest.Viewer(w.Service, bearing(secret)); err != nil {
			t.Error(err)
		}
		all, err := w.Tokens(t.Context(), rita)
		if err != nil || len(all) != 2 || all[0].Seen.IsZero() == all[1].Seen.IsZero() {
			t.Errorf("got %+v, %v", all, err)
		}
		w.clock.Advance(24 * time.Hour)
		if _, err := signintest.Viewer(w.Service, bearing(secret)); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("after its end: %v", err)
		}
		if all, err = w.Tokens(t.Context(), rita); err != nil || len(all) != 1 {
			t.Errorf("got %+v, %v", all, err)
		}
		w.must(w.DeleteToken(t.Context(), rita, all[0].ID))
		if _, err := signintest.Viewer(w.Service, bearing(other)); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("once it is deleted: %v", err)
		}
		for range 50 {
			_, _, err = w.MakeToken(t.Context(), wes, "one of many", 0)
			w.must(err)
		}
		if _, _, err := w.MakeToken(t.Context(), wes, "one too many", 0); !fault.Is(err, fault.Exhausted) {
			t.Errorf("the 51st: %v", err)
		}
	})
}

func TestADeviceGetsAToken(t *testing.T) {
	w := onSQLite(t)
	begun, err := w.StartDevice(t.Context())
	w.must(err)
	if begun.Address != w.deps.GitHubURL+"/login/device" || len(begun.UserCode) != 9 || begun.Pause != 5*time.Second {
		t.Errorf("got %+v", begun)
	}
	if done, err := w.Poll(t.Context(), begun.Code, "laptop"); err != nil || done.Login != "" || done.Secret != "" || done.Slower {
		t.Errorf("before: %+v, %v", done, err)
	}
	if done, err := w.Poll(t.Context(), begun.Code, "laptop"); err != nil || !done.Slower {
		t.Errorf("too soon: %+v, %v", done, err)
	}
	w.must(w.sim.EnterDeviceCode("rita", begun.UserCode, true))
	w.clock.Advance(10 * time.Second)
	done, err := w.Poll(t.Context(), begun.Code, "laptop")
	w.must(err)
	if v, err := signintest.Viewer(w.Service, bearing(done.Secret)); err != nil || v.Login != "rita" || v.CSRF != "" {
		t.Errorf("shows %+v, %v", v, err)
	}
	if _, err := w.Poll(t.Context(), begun.Code, "laptop"); !fault.Is(err, fault.Conflict) {
		t.Errorf("the code again: %v", err)
	}
	denied, err := w.StartDevice(t.Context())
	w.must(err)
	w.must(w.sim.EnterDeviceCode("rita", denied.UserCode, false))
	if _, err := w.Poll(t.Context(), denied.Code, "laptop"); !fault.Is(err, fault.Denied) {
		t.Errorf("denied: %v", err)
	}
	for range 28 {
		_, err = w.StartDevice(t.Context())
		w.must(err)
	}
	if _, err := w.StartDevice(t.Context()); !fault.Is(err, fault.Exhausted) {
		t.Errorf("the 31st in a minute: %v", err)
	}
	if strings.Contains(w.logs.String(), begun.Code) || strings.Contains(w.logs.String(), done.Secret) {
		t.Error("a secret is in the log")
	}
}
