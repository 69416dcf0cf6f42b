package githubsim

import (
	cryptorand "crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// OAuth is how people sign in through the App, as its settings page has it. Without a ClientID nobody can.
type OAuth struct {
	ClientID     string
	ClientSecret string
	CallbackURLs []string      // where people may be sent back to, exactly; the first where a request names none
	DeviceFlow   bool          // "Enable Device Flow"
	TokenLife    time.Duration // of a person's token; 0: eight hours, as GitHub's
	Browser      string        // who is signed in at every browser: the page that asks for leave needs no name then
}

// How long what GitHub hands out is good for.
const (
	codeLife    = 10 * time.Minute
	userLife    = 8 * time.Hour
	refreshLife = 184 * 24 * time.Hour
	deviceLife  = 15 * time.Minute
	devicePause = 5 * time.Second
)

// people are the authorizations that persons have given to the App.
type people struct {
	codes   map[string]*authorization
	tokens  map[string]*authorization // by access token
	devices map[string]*device        // by device code
	teams   map[string][]*account     // the members of org/team, in lower case
}

func newPeople() *people {
	return &people{
		codes: map[string]*authorization{}, tokens: map[string]*authorization{}, devices: map[string]*device{},
		teams: map[string][]*account{},
	}
}

// An authorization is one time that a person let the App act for them: a code at first, then tokens.
type authorization struct {
	who       *account
	redirect  string // that the code was sent to
	challenge string // of PKCE, by S256; empty: none was sent
	ends      time.Time

	access, refresh string
	refreshEnds     time.Time
}

// A device is one that waits for a person to enter its code.
type device struct {
	userCode  string
	ends      time.Time
	pause     time.Duration // that it must leave between two questions
	asked     time.Time
	allowedBy *account // nil: nobody yet
	denied    bool
}

// exchange makes tokens of an authorization, in place of those that it had.
func (p *people) exchange(a *authorization, now time.Time, life time.Duration) {
	delete(p.tokens, a.access)
	a.access, a.refresh = "ghu_"+cryptorand.Text(), "ghr_"+cryptorand.Text()+cryptorand.Text()
	a.ends, a.refreshEnds = now.Add(life), now.Add(refreshLife)
	p.tokens[a.access] = a
}

// byRefresh finds an authorization by its refresh token, which is good once.
func (p *people) byRefresh(token string, now time.Time) *authorization {
	for _, a := range p.tokens {
		if token != "" && a.refresh == token && now.Before(a.refreshEnds) {
			return a
		}
	}
	return nil
}

// revoke ends all that a person has authorized.
func (p *people) revoke(who *account) {
	for token, a := range p.tokens {
		if a.who == who {
			delete(p.tokens, token)
		}
	}
}

// byUserCode finds a device that waits still.
func (p *people) byUserCode(code string, now time.Time) *device {
	for _, d := range p.devices {
		if strings.EqualFold(d.userCode, strings.TrimSpace(code)) && now.Before(d.ends) && d.allowedBy == nil && !d.denied {
			return d
		}
	}
	return nil
}

func (o OAuth) life() time.Duration {
	if o.TokenLife > 0 {
		return o.TokenLife
	}
	return userLife
}

// SetOAuth sets Config.OAuth, once the addresses in it are known.
func (s *Controls) SetOAuth(oauth OAuth) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.OAuth = oauth
}

// Authorize has a person let the App act for them, and returns the code that their browser brings back.
func (s *Controls) Authorize(login, redirect, challenge string) (code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.people.authorize(s.user(login), redirect, challenge, s.now())
}

func (p *people) authorize(who *account, redirect, challenge string, now time.Time) (code string) {
	code = strings.ToLower(cryptorand.Text()[:20])
	p.codes[code] = &authorization{who: who, redirect: redirect, challenge: challenge, ends: now.Add(codeLife)}
	return code
}

// EnterDeviceCode has a person enter what a device shows, and allow or deny it.
func (s *Controls) EnterDeviceCode(login, userCode string, allow bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.people.enterCode(s.user(login), userCode, allow, s.now())
}

func (p *people) enterCode(who *account, userCode string, allow bool, now time.Time) error {
	d := p.byUserCode(userCode, now)
	if d == nil {
		return fmt.Errorf("the code %q is not valid", userCode)
	}
	d.denied = !allow
	if allow {
		d.allowedBy = who
	}
	return nil
}

// RevokeAuthorization has a person withdraw what they have allowed the App: their tokens are refused from then on.
func (s *Controls) RevokeAuthorization(login string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people.revoke(s.user(login))
}

// SetTeamMember adds a person to a team of an organization, or removes them.
func (s *Controls) SetTeamMember(org, team, login string, member bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who, name := s.user(login), key(org, team)
	others := slices.DeleteFunc(s.people.teams[name], func(one *account) bool { return one == who })
	if member {
		others = append(others, who)
	}
	s.people.teams[name] = others
}

// UserToken returns a token of a person's, as if they had signed in; for calls that a test makes as them.
func (s *Controls) UserToken(login string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &authorization{who: s.user(login)}
	s.people.exchange(a, s.now(), s.config.OAuth.life())
	return a.access
}

// UserTokens returns how many tokens of persons are good at present.
func (s *Controls) UserTokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.people.tokens {
		if s.now().Before(a.ends) {
			n++
		}
	}
	return n
}
