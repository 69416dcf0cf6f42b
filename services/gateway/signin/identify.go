package signin

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// TokenPrefix begins every token that a person makes, so that who finds one knows what
// it is, and an admin token is never taken for one.
const TokenPrefix = "forge_pat_"

// CSRFHeader and CSRFField carry a page's CSRF token.
const (
	CSRFHeader = "X-Forge-Csrf"
	CSRFField  = "csrf"
)

// Identify finds out who makes a request, for From, before next answers it. refuse
// answers where that cannot be known, or where a cookie is behind a request that no page
// of this Forge has made.
func (s *Service) Identify(next http.Handler, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	if !s.Enabled() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := s.viewer(r)
		if err != nil {
			refuse(w, r, err)
			return
		}
		inner := r.WithContext(With(r.Context(), v))
		if v.ID != 0 { // a token of theirs is for this room alone
			inner.Header = r.Header.Clone()
			inner.Header.Del("Authorization")
		}
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // which names the span
	})
}

// viewer is who makes a request. A token counts before a cookie: who shows one means it.
func (s *Service) viewer(r *http.Request) (Viewer, error) {
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		switch {
		case !strings.EqualFold(scheme, "Bearer"):
			return Viewer{}, nil
		case s.isAdmin(token):
			return Viewer{Admin: true}, nil
		case strings.HasPrefix(token, rpc.BoundPrefix):
			return Viewer{Bound: true}, nil
		case strings.HasPrefix(token, TokenPrefix):
			v, err := s.find(r.Context(), "personal_tokens", token)
			if err == nil && v.ID == 0 {
				err = fault.New(fault.Unauthenticated, "this token is not good, or no longer: make another by forge login, or on the page of your account")
			}
			return v, err
		}
		return Viewer{}, nil // the room that is asked says that it is wrong
	}
	cookie, err := r.Cookie(s.sessionCookie())
	if err != nil {
		return Viewer{}, nil //nolint:nilerr // there is none
	}
	v, err := s.find(r.Context(), "sessions", cookie.Value)
	if err != nil || v.ID == 0 {
		return v, err
	}
	v.CSRF = csrfOf(cookie.Value)
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return v, nil
	}
	return v, s.checkOrigin(r, v)
}

// find looks for a session or a token by its secret. A viewer without an id: there is
// none, or it has ended.
func (s *Service) find(ctx context.Context, table, secret string) (Viewer, error) {
	hash, now := hashOf(secret), s.deps.Now()
	f, err := s.store.find(ctx, table, hash)
	if fault.Is(err, fault.NotFound) {
		return Viewer{Ended: true}, nil
	}
	if err != nil {
		return Viewer{}, err
	}
	idle := table == "sessions" && !now.Before(f.seen.Add(s.deps.Idle))
	if idle || !now.Before(f.ends) || !f.granted {
		return Viewer{Ended: true}, nil
	}
	if now.Sub(f.seen) >= noteEvery {
		if err := s.store.touch(ctx, table, hash, now); err != nil && !fault.Is(err, fault.Unavailable) {
			return Viewer{}, err
		}
	}
	v := Viewer{ID: f.person, Login: f.login, Credential: "session", secret: hash}
	if table == "personal_tokens" {
		v.Credential = "personal token " + f.name
	}
	return v, nil
}

func csrfOf(secret string) string { return hashOf("csrf\x00" + secret) }

// checkOrigin refuses a request that another site has a browser make: by what the
// browser says of where it comes from, and by the token that only a page of this Forge
// has.
func (s *Service) checkOrigin(r *http.Request, v Viewer) error {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	foreign := site != "" && site != "same-origin" && site != "none" ||
		site == "" && origin != "" && origin != s.origin && origin != "http://"+r.Host && origin != "https://"+r.Host
	given := r.Header.Get(CSRFHeader)
	if given == "" && isForm(r) {
		r.Body = http.MaxBytesReader(nil, r.Body, formLimit)
		given = r.PostFormValue(CSRFField)
	}
	if foreign || subtle.ConstantTimeCompare([]byte(given), []byte(v.CSRF)) != 1 {
		return fault.New(fault.Denied, "this request does not come from a page of this Forge: load the page again and repeat it there")
	}
	return nil
}

// formLimit bounds the forms of pages, in bytes.
const formLimit = 64 << 10

func isForm(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// LifeOf bounds how long a token is to be good: at least a day, LongestToken at most.
func LifeOf(life time.Duration) time.Duration {
	return min(max(life, 24*time.Hour), LongestToken)
}
