package githubsim

import (
	"slices"
	"time"
)

// maxCalls bounds the record; the oldest calls are dropped first.
const maxCalls = 100_000

// A Call is one request to the REST API, and how it was answered.
type Call struct {
	Time         time.Time
	Route        string // the pattern that matched, as "GET /repos/{owner}/{repo}"; "/" is what this GitHub does not know
	Method       string
	Path         string
	Query        string
	Body         string
	Status       int   // what the caller was answered; 0: the connection was cut before there was an answer
	Outcome      int   // the status of GitHub's own answer, whether the caller got it or not; 0: the call never came that far
	Installation int64 // 0: not called as an installation
}

// Calls returns every call so far, the oldest first.
func (s *Controls) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *front) record(c *call, rt route, answered, outcome int) {
	if len(s.calls) == maxCalls {
		s.calls = slices.Delete(s.calls, 0, maxCalls/10)
	}
	one := Call{
		Time: s.now(), Route: rt.pattern, Method: c.Method, Path: c.URL.Path, Query: c.URL.RawQuery,
		Body: string(c.body[:min(len(c.body), maxRequest)]), Status: answered, Outcome: outcome, Installation: c.caller.installationID(),
	}
	s.calls = append(s.calls, one)
	s.config.Log.Debug("call", "method", one.Method, "path", one.Path, "status", answered, "outcome", outcome, "installation", one.Installation)
}

func (s *appAPI) getMeta(*call) *response {
	return ok(object{
		"verifiable_password_authentication": false,
		"hooks":                              []string{"127.0.0.0/8", "::1/128"},
	})
}
