package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/fault"
)

// registerAccount adds the pages of who signs in.
func (p *Pages) registerAccount(mux *http.ServeMux) {
	if p.deps.People == nil || !p.deps.People.Enabled() {
		return
	}
	mux.HandleFunc("GET /sign-in", p.signIn)
	mux.HandleFunc("GET /sign-in/callback", p.signedIn)
	mux.HandleFunc("POST /sign-out", p.signedOut)
	mux.HandleFunc("GET /account", p.account)
	mux.HandleFunc("POST /account/sign-out-everywhere", p.mine(p.signedOutEverywhere))
	mux.HandleFunc("POST /account/tokens", p.mine(p.makeToken))
	mux.HandleFunc("POST /account/tokens/{token}/delete", p.mine(p.deleteToken))
}

func (p *Pages) signIn(w http.ResponseWriter, r *http.Request) {
	secure(w, "text/html; charset=utf-8")
	if err := p.deps.People.Begin(w, r, r.URL.Query().Get("to")); err != nil {
		p.fails(w, r, "Begin", err)
	}
}

// signedIn is where GitHub sends a browser back to.
func (p *Pages) signedIn(w http.ResponseWriter, r *http.Request) {
	secure(w, "text/html; charset=utf-8")
	to, err := p.deps.People.Finish(w, r)
	if err == nil {
		http.Redirect(w, r, p.deps.Base+to, http.StatusSeeOther)
		return
	}
	code := http.StatusServiceUnavailable
	switch {
	case fault.Is(err, fault.Invalid):
		code = http.StatusBadRequest
	case fault.Is(err, fault.Denied):
		code = http.StatusForbidden
	}
	text := err.Error()
	if fault.KindOf(err) == fault.Internal {
		p.deps.Log.ErrorContext(r.Context(), "sign-in failed", "error", err)
		text = "Something is broken here; the log of the gateway says what."
	}
	p.render(w, r, code, "error.html", errorPage{Title: "You are not signed in", Text: text, SignIn: "/"})
}

func (p *Pages) signedOut(w http.ResponseWriter, r *http.Request) {
	if err := p.deps.People.SignOut(w, r); err != nil {
		p.fails(w, r, "SignOut", err)
		return
	}
	http.Redirect(w, r, p.deps.Base+"/", http.StatusSeeOther)
}

// mine is a page of a person who has signed in.
func (p *Pages) mine(show func(http.ResponseWriter, *http.Request, signin.Viewer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := signin.From(r.Context())
		if v.ID == 0 || v.CSRF == "" {
			p.Refuse(w, r, fault.New(fault.Unauthenticated, "Your account is yours to see: sign in."))
			return
		}
		show(w, r, v)
	}
}

func (p *Pages) account(w http.ResponseWriter, r *http.Request) {
	p.mine(func(w http.ResponseWriter, r *http.Request, v signin.Viewer) {
		p.showAccount(w, r, http.StatusOK, v, accountPage{})
	})(w, r)
}

// accountPage is what a person sees of what shows who they are.
type accountPage struct {
	Login, CSRF string
	Sessions    []signin.Session
	Tokens      []signin.Token
	Secret      string // of a token that was just made
	Problem     string // why none was
}

func (p *Pages) showAccount(w http.ResponseWriter, r *http.Request, code int, v signin.Viewer, shown accountPage) {
	var err error
	if shown.Sessions, err = p.deps.People.Sessions(r.Context(), v); err == nil {
		shown.Tokens, err = p.deps.People.Tokens(r.Context(), v)
	}
	if err != nil {
		p.fails(w, r, "Tokens", err)
		return
	}
	shown.Login, shown.CSRF = v.Login, v.CSRF
	p.render(w, r, code, "account.html", shown)
}

func (p *Pages) makeToken(w http.ResponseWriter, r *http.Request, v signin.Viewer) {
	days, err := strconv.Atoi(r.PostFormValue("days"))
	if err != nil || days < 1 || days > 366 {
		days = 0
	}
	_, secret, err := p.deps.People.MakeToken(r.Context(), v, r.PostFormValue("name"), time.Duration(days)*24*time.Hour)
	switch {
	case fault.Is(err, fault.Invalid), fault.Is(err, fault.Exhausted):
		p.showAccount(w, r, http.StatusUnprocessableEntity, v, accountPage{Problem: err.Error()})
	case err != nil:
		p.fails(w, r, "MakeToken", err)
	default:
		p.showAccount(w, r, http.StatusOK, v, accountPage{Secret: secret})
	}
}

func (p *Pages) deleteToken(w http.ResponseWriter, r *http.Request, v signin.Viewer) {
	if err := p.deps.People.DeleteToken(r.Context(), v, r.PathValue("token")); err != nil && !fault.Is(err, fault.NotFound) {
		p.fails(w, r, "DeleteToken", err)
		return
	}
	http.Redirect(w, r, p.deps.Base+"/account", http.StatusSeeOther)
}

func (p *Pages) signedOutEverywhere(w http.ResponseWriter, r *http.Request, v signin.Viewer) {
	if err := p.deps.People.SignOutEverywhere(r.Context(), v.ID); err != nil {
		p.fails(w, r, "SignOutEverywhere", err)
		return
	}
	p.signedOut(w, r)
}

// Refuse says why somebody may not see, or do, what they asked for, and what helps.
func (p *Pages) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	shown, code := errorPage{Title: "This is not for everybody", Text: err.Error()}, http.StatusForbidden
	v := signin.From(r.Context())
	switch {
	case fault.Is(err, fault.Unauthenticated):
		shown.Title, code, shown.SignIn = "Sign in to see this", http.StatusUnauthorized, "/"
		if v.Ended {
			shown.Title = "Your session has ended"
		}
		if r.Method == http.MethodGet {
			shown.SignIn = r.URL.RequestURI()
		}
	case fault.Is(err, fault.Denied) && v.Login != "":
		shown.Login = v.Login
	case fault.Is(err, fault.Unavailable):
		shown.Title, code = "It is not known who may see this", http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	p.render(w, r, code, "error.html", shown)
}
