package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/oauth2"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// flow is a sign-in that a browser has begun. The browser keeps it, sealed, until GitHub
// sends it back.
type flow struct {
	State    string    `json:"state"`
	Verifier string    `json:"verifier"` // of PKCE
	To       string    `json:"to"`       // where to go then, below the root
	Ends     time.Time `json:"ends"`
}

// flowSlot is where a sign-in that has begun has its place.
type flowSlot struct{}

func (flowSlot) Bytes() []byte { return []byte("forge sign-in") }

// Local is a path of this Forge to go to, with its query; "/" where it could lead
// anywhere else.
func Local(to string) string {
	address, err := url.Parse(to)
	odd := strings.ContainsFunc(to, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '\\' })
	if err != nil || odd || address.Scheme != "" || address.Host != "" || address.User != nil || address.Opaque != "" ||
		!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(address.Path, "//") {
		return "/"
	}
	return to
}

// Begin sends a browser to GitHub to sign in, and to a path of this Forge after that.
func (s *Service) Begin(w http.ResponseWriter, r *http.Request, to string) error {
	f := flow{State: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: Local(to), Ends: s.deps.Now().Add(flowLife)}
	value, err := s.seal(f)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(s.flowCookie(), value, flowLife))
	http.Redirect(w, r, s.oauth.AuthCodeURL(f.State, oauth2.S256ChallengeOption(f.Verifier)), http.StatusSeeOther)
	return nil
}

func (s *Service) seal(f flow) (string, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return "", fmt.Errorf("sign-in: %w", err)
	}
	keyID, sealed, err := s.ring.Seal(flowSlot{}, string(text))
	return keyID + "." + base64.RawURLEncoding.EncodeToString(sealed), err
}

func (s *Service) unseal(value string) (f flow, ok bool) {
	keyID, text, _ := strings.Cut(value, ".")
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return flow{}, false
	}
	plain, err := s.ring.Open(flowSlot{}, keyID, sealed)
	return f, err == nil && json.Unmarshal([]byte(plain), &f) == nil && s.deps.Now().Before(f.Ends)
}

// notBegun is why a browser that comes back from GitHub is not signed in: it, or another
// in its place, did not begin this here.
func notBegun() error {
	return fault.New(fault.Invalid, "This sign-in was not begun in this browser, or took too long. Begin it again.")
}

// Finish signs a browser in that GitHub has sent back, and returns where it goes. The
// error is for who reads it in the browser.
func (s *Service) Finish(w http.ResponseWriter, r *http.Request) (to string, err error) {
	kept, err := r.Cookie(s.flowCookie())
	http.SetCookie(w, s.cookie(s.flowCookie(), "", -1)) // good once, whatever comes of it
	if err != nil {
		return "", notBegun()
	}
	f, ok := s.unseal(kept.Value)
	query := r.URL.Query()
	if !ok || subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.State)) != 1 {
		return "", notBegun()
	}
	if problem := query.Get("error"); problem != "" {
		if problem != "access_denied" {
			s.deps.Log.WarnContext(r.Context(), "GitHub refused a sign-in", "error", problem)
		}
		return "", fault.New(fault.Denied, "GitHub did not sign you in: you, or it, said no.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), askWithin)
	defer cancel()
	token, err := s.oauth.Exchange(s.toGitHub(ctx), query.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return "", s.refused(ctx, err)
	}
	g, err := s.grantOf(ctx, token)
	if err != nil {
		return "", err
	}
	secret, now := rand.Text()+rand.Text(), s.deps.Now()
	if err := s.store.signedIn(ctx, g, f.State, f.Ends, s.audited(schedulerv1.AuditEntry_ACTION_SIGN_IN, g.login, "", addSession(hashOf(secret), g.person, agentOf(r), now, now.Add(s.deps.Life)))); err != nil {
		if fault.Is(err, fault.Exists) {
			return "", notBegun()
		}
		return "", err
	}
	if before, err := r.Cookie(s.sessionCookie()); err == nil { // what was known before the sign-in is worth nothing after it
		if err := s.store.remove(ctx, "sessions", hashOf(before.Value)); err != nil {
			return "", err
		}
	}
	http.SetCookie(w, s.cookie(s.sessionCookie(), secret, s.deps.Life))
	s.handOver()
	s.deps.Log.InfoContext(ctx, "signed in", "login", g.login)
	return f.To, nil
}

// refused is why GitHub hands out no token.
func (s *Service) refused(ctx context.Context, err error) error {
	hidden := hideSecrets(err)
	s.deps.Log.WarnContext(ctx, "GitHub handed out no token; nobody is signed in", "error", hidden)
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) && answer.ErrorCode == "bad_verification_code" {
		return notBegun()
	}
	return fault.Newf(fault.Unavailable, "GitHub does not answer, or not as it should; nobody is signed in. Try again in a moment.")
}

// grantOf asks GitHub whose a fresh token is.
func (s *Service) grantOf(ctx context.Context, token *oauth2.Token) (grant, error) {
	id, login, err := s.whoIs(ctx, token.AccessToken)
	if err != nil {
		return grant{}, err
	}
	return s.granted(id, login, token)
}

// agentOf is how a person knows a browser again in a list.
func agentOf(r *http.Request) string {
	agent := strings.ToValidUTF8(r.UserAgent(), "")
	if len(agent) > 200 {
		agent = strings.ToValidUTF8(agent[:200], "")
	}
	return agent
}

// SignOut ends the session of the request.
func (s *Service) SignOut(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, s.cookie(s.sessionCookie(), "", -1))
	if shown, err := r.Cookie(s.sessionCookie()); err == nil {
		return s.signedOut(r.Context(), From(r.Context()), "session", "DELETE FROM sessions WHERE hash = $1", hashOf(shown.Value))
	}
	return nil
}

// SignOutEverywhere ends all sessions and tokens of a person, and has GitHub forget
// what lets Forge ask as them.
func (s *Service) SignOutEverywhere(ctx context.Context, person int64) error {
	g, t, err := s.read(ctx, person)
	// With the person go all sessions and tokens of theirs.
	if err := s.signedOut(ctx, From(ctx), "everywhere", "DELETE FROM people WHERE id = $1", person); err != nil {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // nothing is left that GitHub could forget
	}
	if err := s.giveBack(ctx, t.Access); err != nil {
		s.deps.Log.WarnContext(ctx, "GitHub could not be told that somebody has signed out; what lets Forge ask as them ends by itself", "login", g.login, "error", err)
	}
	return nil
}

// The names of cookies. A browser takes one that begins with __Host- over HTTPS alone,
// from this host alone and for all of it: no other host can set it.
func (s *Service) sessionCookie() string { return s.hostPrefix() + "forge_session" }
func (s *Service) flowCookie() string    { return s.hostPrefix() + "forge_signin" }

func (s *Service) hostPrefix() string {
	if s.secure {
		return "__Host-"
	}
	return ""
}

// cookie makes one; a negative age takes it away. Lax, since people follow links from
// GitHub to builds, and GitHub sends them back.
func (s *Service) cookie(name, value string, age time.Duration) *http.Cookie {
	seconds := int(age / time.Second)
	if age < 0 {
		seconds = -1
	}
	return &http.Cookie{ //nolint:gosec // Secure wherever people come by HTTPS
		Name: name, Value: value, Path: "/", MaxAge: seconds, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode,
	}
}
