package image

import (
	"net/http"
	"strconv"
	"time"
)

// mostPatience is how long a registry may have Forge wait: one that says longer is not
// waited for, and the build ends.
const mostPatience = 30 * time.Second

// patient hands on that a registry wants fewer requests once the time is over that it has
// asked for, so that whoever tries again does not come too soon.
type patient struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, err
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 || seconds > int(mostPatience/time.Second) {
		return resp, nil // it says no time, or one that is not waited for
	}
	pause := time.NewTimer(time.Duration(seconds) * time.Second)
	defer pause.Stop()
	select {
	case <-req.Context().Done():
		_ = resp.Body.Close() // why it ended is said below
		return nil, req.Context().Err()
	case <-pause.C:
		return resp, nil
	}
}
