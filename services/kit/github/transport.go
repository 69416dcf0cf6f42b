package github

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
)

// toSignedLink is true of a request that follows GitHub's 302 to a link that is
// a credential itself, as of a tarball. GitHub redirects to another API address,
// of a renamed repository say, with 301, 307 or 308.
func toSignedLink(req *http.Request) bool {
	for from := req.Response; from != nil; from = from.Request.Response {
		if from.StatusCode == http.StatusFound {
			return true
		}
	}
	return false
}

// authTransport adds the token, and sends a request that was answered 401 once
// more with a fresh one: GitHub did nothing for the first. What a token that was
// just made is not allowed it makes an error that is worth another try.
type authTransport struct {
	host     string // the only one that may see the token
	tokens   TokenSource
	justMade func(token string) bool // nil: no token is
	log      *slog.Logger
	next     http.RoundTripper
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.host || toSignedLink(req) {
		return t.next.RoundTrip(req)
	}
	token, resp, err := t.send(req, req.Body)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return t.settled(req, token, resp, err)
	}
	t.tokens.Expire(token)
	body := req.Body
	if body != nil {
		if req.GetBody == nil {
			return resp, nil
		}
		if body, err = req.GetBody(); err != nil {
			return resp, nil //nolint:nilerr // the 401 tells more
		}
	}
	discard(resp)
	t.log.DebugContext(req.Context(), "GitHub no longer takes a token, renewing it", "call", describe(req))
	token, resp, err = t.send(req, body)
	return t.settled(req, token, resp, err)
}

// settled returns what a request was answered, or that its token is not known
// everywhere yet: for some seconds GitHub answers 403 as if it had no permissions.
func (t *authTransport) settled(req *http.Request, token string, resp *http.Response, err error) (*http.Response, error) {
	if err != nil || resp.StatusCode != http.StatusForbidden || t.justMade == nil || !t.justMade(token) {
		return resp, err
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err == nil && !bytes.Contains(start, []byte("Resource not accessible by integration")) {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(start), resp.Body), resp.Body}
		return resp, nil
	}
	discard(resp)
	return nil, fault.Newf(fault.Unavailable, "GitHub may not know yet what a token that was just made allows; could not %s", describe(req))
}

// maxRefusal is how many bytes of a refusal are looked through; one that is about
// permissions has a few hundred.
const maxRefusal = 64 << 10

func (t *authTransport) send(req *http.Request, body io.ReadCloser) (token string, _ *http.Response, _ error) {
	token, err := t.tokens.Token(req.Context())
	if err != nil {
		if body != nil {
			_ = body.Close() // as a RoundTripper must
		}
		return "", nil, &tokenError{err}
	}
	authorized := req.Clone(req.Context())
	authorized.Body = body
	authorized.Header.Set("Authorization", "Bearer "+token)
	resp, err := t.next.RoundTrip(authorized)
	return token, resp, err
}

// tokenError tells a missing token from a call that failed.
type tokenError struct{ cause error }

func (e *tokenError) Error() string { return "no token for GitHub: " + e.cause.Error() }
func (e *tokenError) Unwrap() error { return e.cause }

const (
	readTries = 3
	readPause = 200 * time.Millisecond // before the second, three times that before the third; half of it random
)

// retryTransport reads again what failed in a way that GitHub recovers from in a
// moment. Requests that change something pass through, and so do answers that
// say how long to wait.
type retryTransport struct {
	log  *slog.Logger
	next http.RoundTripper
}

func (t *retryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	pause := readPause
	for try := 1; ; try++ {
		resp, err := t.next.RoundTrip(req)
		if try == readTries || req.Method != http.MethodGet || req.Context().Err() != nil || !momentary(resp, err) {
			return resp, err
		}
		discard(resp)
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // spreads calls, hides nothing
		t.log.DebugContext(req.Context(), "reading from GitHub again", "call", describe(req), "try", try+1)
		select {
		case <-req.Context().Done():
			timer.Stop()
			return nil, req.Context().Err()
		case <-timer.C:
		}
		pause *= 3
	}
}

func momentary(resp *http.Response, err error) bool {
	if err != nil {
		network, ok := errors.AsType[net.Error](err)
		return !ok || !network.Timeout() // a timeout has taken long enough
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return resp.Header.Get("Retry-After") == ""
	}
	return false
}

// discard lets the connection be used again.
func discard(resp *http.Response) {
	if resp == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}
