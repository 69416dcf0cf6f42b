// Package signintest signs people in, for tests, through a GitHub whose pages ask for a
// login.
package signintest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/gateway/signin"
)

// Leave has somebody answer GitHub's page at this address, and returns where it sends
// their browser back to. More fields come in pairs.
func Leave(t testing.TB, page, login string, more ...string) string {
	t.Helper()
	address, err := url.Parse(page)
	if err != nil || address.Host == "" {
		t.Fatalf("sent to %q: %v", page, err)
	}
	form := address.Query()
	form.Set("login", login)
	for n := 0; n < len(more); n += 2 {
		form.Set(more[n], more[n+1])
	}
	address.RawQuery = ""
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, address.String(), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // nothing of it is read
	if answer.StatusCode != http.StatusFound {
		t.Fatalf("GitHub answers %s", answer.Status)
	}
	return answer.Header.Get("Location")
}

// Begin has a browser begin to sign in: it returns GitHub's page, and the browser's cookies.
func Begin(t testing.TB, s *signin.Service, to string) (page string, cookies []*http.Cookie) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := s.Begin(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/sign-in", nil), to); err != nil {
		t.Fatal(err)
	}
	return w.Result().Header.Get("Location"), w.Result().Cookies()
}

// Finish has a browser come back from GitHub: it returns where it goes, and its session's cookie,
// nil where there is none.
func Finish(s *signin.Service, back string, cookies ...*http.Cookie) (to string, session *http.Cookie, err error) {
	r, w := httptest.NewRequestWithContext(context.Background(), http.MethodGet, back, nil), httptest.NewRecorder()
	for _, c := range cookies {
		r.AddCookie(c)
	}
	to, err = s.Finish(w, r)
	for _, c := range w.Result().Cookies() {
		if strings.HasSuffix(c.Name, "forge_session") && c.MaxAge > 0 {
			session = c
		}
	}
	return to, session, err
}

// Cookie signs somebody in, and returns their session's cookie.
func Cookie(t testing.TB, s *signin.Service, login string) *http.Cookie {
	t.Helper()
	page, cookies := Begin(t, s, "/")
	_, session, err := Finish(s, Leave(t, page, login), cookies...)
	if err != nil || session == nil {
		t.Fatalf("%s is not signed in: %v", login, err)
	}
	return session
}

// Viewer is who a request is made by; refused is why it is not let through.
func Viewer(s *signin.Service, r *http.Request) (v signin.Viewer, refused error) {
	s.Identify(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { v = signin.From(r.Context()) }),
		func(_ http.ResponseWriter, _ *http.Request, err error) { refused = err }).ServeHTTP(httptest.NewRecorder(), r)
	return v, refused
}

// Seen is who a cookie shows.
func Seen(t testing.TB, s *signin.Service, cookie *http.Cookie) signin.Viewer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.AddCookie(cookie)
	v, err := Viewer(s, r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
