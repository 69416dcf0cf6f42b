package githubsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const maxRequest = 1 << 20 // bytes

// A call is one request, read, and known to be allowed.
type call struct {
	*http.Request
	body   []byte
	caller caller
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

// number is a path value that counts or identifies; 0, which names nothing, if it is no number.
func (c *call) number(name string) int64 {
	n, err := strconv.ParseInt(c.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// ServeHTTP answers the REST API, with and without the /api/v3 of Enterprise, and the pages under /sim.
//
// What may go wrong on the way to GitHub (latency, 502s, cut connections, limits) belongs here, before anything is done.
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mux.ServeHTTP(w, oneSegmentRefs(r))
}

var refInPath = regexp.MustCompile(`^(/repos/[^/]+/[^/]+/(?:branches|commits|compare)/)(.+?)(/status|/statuses)?$`)

// oneSegmentRefs drops the /api/v3 prefix and escapes the slashes of a ref in the middle of a path, which a pattern could
// not match: GitHub takes commits/feature/x/status.
func oneSegmentRefs(r *http.Request) *http.Request {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/api/v3")
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

// serve answers one route: it reads, asks who calls and whether they may, and records what was answered.
func (s *Sim) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		s.mu.Lock()
		c := &call{Request: r, body: body, links: linksTo(r)}
		res := refuse(http.StatusRequestEntityTooLarge, "The request body is too large")
		if err == nil {
			res = s.answer(rt, c)
		}
		header := w.Header()
		header.Set("X-Github-Request-Id", strings.ToUpper(uuid.NewString()))
		header.Set("X-Github-Media-Type", "github.v3; format=json")
		if rt.access.permission != "" {
			header.Set("X-Accepted-Github-Permissions", rt.access.permission+"="+rt.access.level)
		}
		res.settle(c, rt)
		s.countCall(c, rt, header, res.status)
		s.record(c, rt, res.status)
		s.mu.Unlock()
		if err := res.write(w); err != nil {
			s.config.Log.Debug("answer cut short", "path", r.URL.Path, "error", err)
		}
	}
}

// answer lets the handler speak if the caller may be here; s.mu is held.
func (s *Sim) answer(rt route, c *call) *response {
	var refusal *response
	if c.caller, refusal = s.authenticate(c.Request, rt.access.who); refusal != nil {
		return refusal
	}
	if refusal = s.admit(rt.access, c); refusal != nil {
		return refusal
	}
	return rt.handle(c)
}
