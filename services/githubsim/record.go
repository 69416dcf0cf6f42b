package githubsim

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// maxCalls bounds the record; the oldest leave first.
const maxCalls = 100_000

// A Call is one request to the REST API and what it got.
type Call struct {
	Time         time.Time
	Route        string // the pattern that matched, as "GET /repos/{owner}/{repo}"; "/" is what this GitHub does not know
	Method       string
	Path         string
	Query        string
	Body         string
	Status       int
	Installation int64 // 0: not called as an installation
}

// Calls returns every call so far, the oldest first.
func (s *Sim) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *Sim) record(c *call, rt route, status int) {
	if len(s.calls) == maxCalls {
		s.calls = slices.Delete(s.calls, 0, maxCalls/10)
	}
	one := Call{
		Time: s.now(), Route: rt.pattern, Method: c.Method, Path: c.URL.Path, Query: c.URL.RawQuery,
		Body: string(c.body), Status: status, Installation: c.caller.installationID(),
	}
	s.calls = append(s.calls, one)
	s.config.Log.Debug("call", "method", one.Method, "path", one.Path, "status", status, "installation", one.Installation)
}

// GitHub gives an installation this many calls an hour; nobody in particular gets 60.
const (
	hourly          = 5000
	hourlyAnonymous = 60
)

// An allowance is what one caller has used of the hour that ends at reset.
type allowance struct {
	limit, used int
	reset       time.Time
}

func (s *Sim) allowance(of caller) *allowance {
	a := s.allowances[of.name()]
	if a == nil || !s.now().Before(a.reset) {
		a = &allowance{limit: hourly, reset: s.now().Add(time.Hour)}
		if of == (caller{}) {
			a.limit = hourlyAnonymous
		}
		s.allowances[of.name()] = a
	}
	return a
}

func (a *allowance) object() object {
	return object{"limit": a.limit, "used": a.used, "remaining": max(a.limit-a.used, 0), "reset": a.reset.Unix()}
}

// countCall counts the call and says what is left. A 304 costs nothing, nor does asking how much is left, nor a download.
func (s *Sim) countCall(c *call, rt route, header http.Header, status int) {
	a := s.allowance(c.caller)
	if status != http.StatusNotModified && rt.access.who != anyone {
		a.used++
	}
	header.Set("X-Ratelimit-Limit", strconv.Itoa(a.limit))
	header.Set("X-Ratelimit-Used", strconv.Itoa(a.used))
	header.Set("X-Ratelimit-Remaining", strconv.Itoa(max(a.limit-a.used, 0)))
	header.Set("X-Ratelimit-Reset", strconv.FormatInt(a.reset.Unix(), 10))
	header.Set("X-Ratelimit-Resource", "core")
}

func (s *Sim) getRateLimit(c *call) *response {
	core := s.allowance(c.caller).object()
	return ok(object{"resources": object{"core": core}, "rate": core})
}

func (s *Sim) getMeta(*call) *response {
	return ok(object{
		"verifiable_password_authentication": false,
		"hooks":                              []string{"127.0.0.0/8", "::1/128"},
	})
}
