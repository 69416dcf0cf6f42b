package github

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
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
// more with a fresh one: GitHub did nothing for the first.
type authTransport struct {
	host   string // the only one that may see the token
	tokens TokenSource
	log    *slog.Logger
	next   http.RoundTripper
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.host || toSignedLink(req) {
		return t.next.RoundTrip(req)
	}
	token, resp, err := t.send(req, req.Body)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
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
	_, resp, err = t.send(req, body)
	return resp, err
}

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
