package githubsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const maxRequest = 1 << 20 // bytes

// A call is one request.
type call struct {
	*http.Request
	body   []byte
	caller caller
	usage  *usage      // that the call was counted in
	repo   *repository // of the route, if it names one
	links  links
}

// decode reads the body into target. An empty body leaves target as it is.
func (c *call) decode(target any) *response {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil
	}
	err := json.Unmarshal(c.body, target)
	var mistyped *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mistyped):
		return refuse(http.StatusUnprocessableEntity, fmt.Sprintf("Invalid request.\n\nFor '%s', %s is not a %s.", mistyped.Field, mistyped.Value, mistyped.Type))
	}
	return refuse(http.StatusBadRequest, "Problems parsing JSON")
}

// number returns a path value as a number; 0, which names nothing, where it is none.
func (c *call) number(name string) int64 {
	n, err := strconv.ParseInt(c.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// front is where calls arrive: it finds the route, asks who calls and whether they may, and keeps the limits.
type front struct {
	*changes

	mux *http.ServeMux
}

// ServeHTTP answers the REST API, with and without the /api/v3 of Enterprise, and the pages under /sim.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.front.mux.ServeHTTP(w, s.front.routed(r))
}

var refInPath = regexp.MustCompile(`^(/repos/[^/]+/[^/]+/(?:branches|commits|compare)/)(.+?)(/status|/statuses|/check-runs|/check-suites|/pulls)?$`)

// routed returns the request with a path that the patterns match: without /api/v3, by the repository's name, and with the
// slashes of a ref in the middle escaped, as in commits/feature/x/status.
func (s *front) routed(r *http.Request) *http.Request {
	path := s.byName(strings.TrimPrefix(r.URL.EscapedPath(), "/api/v3"))
	if m := refInPath.FindStringSubmatch(path); m != nil {
		path = m[1] + strings.ReplaceAll(m[2], "/", "%2F") + m[3]
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return r
	}
	routed := *r
	routed.URL = new(url.URL)
	*routed.URL = *r.URL
	routed.URL.Path, routed.URL.RawPath = plain, path
	return &routed
}

// serve answers one route: it reads the request, authenticates and admits the caller, and records the response. A
// misbehaviour takes effect before or after the handler, never within it.
func (s *front) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := receiveBody(rt, w, r)
		c := &call{Request: r, body: body, links: linksTo(r)}
		refusal, t := s.receive(rt, c, err)
		defer s.release(c)
		t.pause(r.Context()) // GitHub goes on where the caller hangs up meanwhile
		if err := t.write(r.Context(), w, s.execute(rt, c, refusal, t)); err != nil {
			s.config.Log.DebugContext(r.Context(), "write of a response failed", "path", r.URL.Path, "error", err)
		}
	}
}

// receive authenticates the caller, counts the call against the limits, and returns what is to go wrong with it.
func (s *front) receive(rt route, c *call, unread error) (refusal *response, t trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if unread != nil {
		refusal = refuse(http.StatusRequestEntityTooLarge, "The request body is too large")
	} else if c.caller, refusal = s.authenticate(c.Request, rt.access.who); refusal == nil {
		refusal = s.limit(c, rt)
	}
	return refusal, s.trouble(rt, c)
}

// execute calls the handler, unless the call is refused or lost, and returns what the caller gets.
func (s *front) execute(rt route, c *call, refusal *response, t trouble) *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	res, outcome := refusal, 0
	if !t.lost() {
		if res == nil {
			res = s.dispatch(rt, c)
		}
		res.finish(c, rt)
		outcome = res.status
	}
	if instead := t.instead(); instead != nil {
		res = instead
		res.finish(c, rt)
	}
	res.header.Set("Date", s.now().Format(http.TimeFormat))
	res.header.Set("X-Github-Request-Id", strings.ToUpper(uuid.NewString()))
	if !rt.access.overGit() {
		s.writeAPIHeaders(rt, c, res)
	}
	answered := res.status
	if t.silent() {
		answered = 0
	}
	s.record(c, rt, answered, outcome)
	return res
}

func (s *front) writeAPIHeaders(rt route, c *call, res *response) {
	res.header.Set("X-Github-Media-Type", "github.v3; format=json")
	if len(rt.access.permissions) > 0 {
		res.header.Set("X-Accepted-Github-Permissions", rt.access.text())
	}
	s.writeUsage(c, res.header, res.status)
}

// dispatch calls the handler if the caller is admitted.
func (s *front) dispatch(rt route, c *call) *response {
	if redirect := s.redirectMoved(rt, c); redirect != nil {
		return redirect
	}
	if refusal := s.admit(rt.access, c); refusal != nil {
		return refusal
	}
	return rt.handle(c)
}
