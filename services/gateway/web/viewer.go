package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/fault"
)

// viewer is who looks at a page, as far as that was proven. Calls with the context of
// the request are made with the viewer's authority.
type viewer struct {
	Known bool
	// CSRF goes along with what the viewer's forms ask for, which no other site knows.
	CSRF string
}

type viewerKey struct{}

// viewerOf is who made the request that ctx belongs to.
func (p *Pages) viewerOf(ctx context.Context) viewer {
	if p.peopleSignIn() {
		v := signin.From(ctx)
		return viewer{Known: v.Known() && v.CSRF != "", CSRF: v.CSRF}
	}
	v, _ := ctx.Value(viewerKey{}).(viewer)
	return v
}

// peopleSignIn reports whether people sign in with GitHub. Where they cannot, whoever has
// the admin token does with that.
func (p *Pages) peopleSignIn() bool { return p.deps.People != nil && p.deps.People.Enabled() }

// may reports whether a button is to be there for whoever looks: what it asks for would be
// done. Where people do not sign in with GitHub, it is for who has shown the admin token.
func (p *Pages) may(ctx context.Context, method string, request proto.Message) bool {
	known := p.viewerOf(ctx).Known
	if known && p.peopleSignIn() && p.deps.May != nil {
		return p.deps.May(ctx, method, request)
	}
	return known
}

const (
	adminCookie = "forge-admin"
	// largestForm bounds what a form of a page sends, in bytes.
	largestForm = 64 << 10
)

// Know makes pages for whoever the request's cookie says, where people cannot sign in
// with GitHub. The cookie holds the admin token; the room that is called looks whether it
// is the right one. It opens nothing but pages: what is not asked for by one of their
// forms shows a token itself.
func (p *Pages) Know(next http.Handler) http.Handler {
	if p.peopleSignIn() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := cookieToken(r)
		if token == "" || strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		ctx := asAdmin(r.Context(), token)
		inner := r.WithContext(context.WithValue(ctx, viewerKey{}, viewer{Known: true, CSRF: csrfOf(token)}))
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // which names the span
	})
}

// cookieToken is what the cookie of a request holds; "" where that is nothing. A token may
// have characters that a cookie may not.
func cookieToken(r *http.Request) string {
	cookie, err := r.Cookie(adminCookie)
	if err != nil {
		return ""
	}
	token, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || !printable(string(token)) {
		return ""
	}
	return string(token)
}

// printable reports whether a token can be the admin's: it goes into a header.
func printable(token string) bool {
	return !strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' })
}

func asAdmin(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// csrfOf follows from what the cookie holds, and nobody finds that from it.
func csrfOf(token string) string {
	sum := hmac.New(sha256.New, []byte(token))
	sum.Write([]byte("forms of pages"))
	return hex.EncodeToString(sum.Sum(nil))
}

// act guards what a form asks for: it comes from a page of this Forge that was made for
// the same viewer.
func (p *Pages) act(do http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, largestForm)
		who := p.viewerOf(r.Context())
		switch {
		case p.foreign(r):
			p.refuse(w, r, "This came from another site", "Nothing was done. Forms of this Forge work from its own pages alone.")
		case !who.Known:
			p.fails(w, r, r.URL.Path, fault.New(fault.Unauthenticated, "nothing was done: sign in first"))
		case subtle.ConstantTimeCompare([]byte(r.PostFormValue("csrf")), []byte(who.CSRF)) != 1:
			p.refuse(w, r, "This page is too old", "Nothing was done. Somebody has signed in or out since it was loaded: go back, load it again, and try once more.")
		default:
			do(w, r)
		}
	}
}

// foreign reports whether a browser says that a form is not of this Forge.
func (p *Pages) foreign(r *http.Request) bool {
	guard := http.NewCrossOriginProtection()
	if at, err := url.Parse(p.deps.ExternalURL); err == nil && at.Host != "" {
		_ = guard.AddTrustedOrigin(at.Scheme + "://" + at.Host) // an address that is none is found at start-up
	}
	return guard.Check(r) != nil
}

func (p *Pages) refuse(w http.ResponseWriter, r *http.Request, title, text string) {
	p.render(w, r, http.StatusForbidden, "error.html", errorPage{Title: title, Text: text})
}

// signInPage asks for the admin token.
type signInPage struct {
	Next  string // the path to go on to
	Wrong bool   // that a token was shown that is not the right one
}

func (p *Pages) askSignIn(w http.ResponseWriter, r *http.Request, shown signInPage) {
	p.render(w, r, http.StatusUnauthorized, "signin.html", shown)
}

// adminSignIn keeps the admin token of a form in a cookie that scripts and other sites do not get.
func (p *Pages) adminSignIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, largestForm)
	if p.foreign(r) {
		p.refuse(w, r, "This came from another site", "You were not signed in. Sign in on a page of this Forge.")
		return
	}
	token, next := r.PostFormValue("token"), p.ownPath(r.PostFormValue("next"))
	ctx := metadata.NewOutgoingContext(r.Context(), metadata.MD{}) // without the cookie's
	err := fault.New(fault.Unauthenticated, "no token")
	if token != "" && printable(token) {
		_, err = p.deliveries.ListDeliveries(asAdmin(ctx, token), &gatewayv1.ListDeliveriesRequest{PageSize: 1})
	}
	if fault.Is(err, fault.Unauthenticated) {
		p.askSignIn(w, r, signInPage{Next: next, Wrong: true})
		return
	}
	if err != nil {
		p.fails(w, r, "ListDeliveries", err)
		return
	}
	http.SetCookie(w, p.cookie(base64.RawURLEncoding.EncodeToString([]byte(token)), 0))
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (p *Pages) adminSignOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, p.cookie("", -1))
	http.Redirect(w, r, p.deps.Base+"/", http.StatusSeeOther)
}

func (p *Pages) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure wherever there is TLS
		Name: adminCookie, Value: value, MaxAge: maxAge, Path: p.deps.Base + "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: strings.HasPrefix(p.deps.ExternalURL, "https://"),
	}
}

// ownPath is a path of this Forge: that one, or its root where it leads elsewhere.
func (p *Pages) ownPath(next string) string {
	at, err := url.Parse(next)
	own := p.deps.Base + "/"
	if err != nil || at.Scheme != "" || at.Host != "" || at.User != nil || !strings.HasPrefix(next, own) ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return own
	}
	return next
}

// fails shows why a page cannot be: who asks is not known, or may not; there is no such
// thing; or a room does not answer.
func (p *Pages) fails(w http.ResponseWriter, r *http.Request, call string, err error) {
	switch {
	case p.peopleSignIn() && (fault.Is(err, fault.Unauthenticated) || fault.Is(err, fault.Denied)):
		p.Refuse(w, r, err)
	case fault.Is(err, fault.Unauthenticated), fault.Is(err, fault.Denied):
		next := p.deps.Base + "/"
		if r.Method == http.MethodGet {
			next = p.deps.Base + r.URL.RequestURI()
		}
		p.askSignIn(w, r, signInPage{Next: p.ownPath(next), Wrong: p.viewerOf(r.Context()).Known})
	case fault.Is(err, fault.NotFound):
		p.render(w, r, http.StatusNotFound, "error.html", errorPage{Title: "There is no such page", Text: sentence(err)})
	case fault.Is(err, fault.Invalid):
		p.render(w, r, http.StatusBadRequest, "error.html", errorPage{Title: "That cannot be shown", Text: sentence(err)})
	case fault.Is(err, fault.Conflict), fault.Is(err, fault.Exists):
		p.render(w, r, http.StatusConflict, "error.html", errorPage{Title: "Nothing was done", Text: sentence(err)})
	default:
		if r.Context().Err() == nil {
			p.deps.Log.WarnContext(r.Context(), "a call failed; the page is not shown", "call", call, "error", err)
		}
		p.render(w, r, http.StatusServiceUnavailable, "error.html", errorPage{
			Title: "This cannot be shown right now", Text: "A part of Forge does not answer. What runs goes on; try again in a moment. The page of health says which part it is.",
		})
	}
}

// sentence is an error as a sentence for people.
func sentence(err error) string {
	text := strings.TrimSuffix(err.Error(), ".") + "."
	return strings.ToUpper(text[:1]) + text[1:]
}
