package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Outcome is what an error of a call means for the one who made it.
type Outcome struct {
	Kind fault.Kind
	// Retry is true when the same call may succeed later, After at the earliest;
	// 0 leaves the pause to the caller.
	Retry bool
	After time.Duration
	// Suspended is true when an owner of the account has suspended the App's
	// installation: nothing succeeds until it is resumed.
	Suspended bool
	// Text says what happened to a person: no token, no query of an address.
	Text string
}

// GitHub's advice when a secondary limit comes without a time: wait at least a
// minute. https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
const unstatedWait = time.Minute

// kinds of the answers that mean one thing; the rest of 4xx is ours to mend.
var kinds = map[int]fault.Kind{
	http.StatusBadRequest:                 fault.Invalid,
	http.StatusUnauthorized:               fault.Unauthenticated,
	http.StatusForbidden:                  fault.Denied,
	http.StatusNotFound:                   fault.NotFound,
	http.StatusMethodNotAllowed:           fault.Conflict, // a pull request that cannot be merged
	http.StatusRequestTimeout:             fault.Unavailable,
	http.StatusConflict:                   fault.Conflict,
	http.StatusGone:                       fault.NotFound,
	http.StatusUnprocessableEntity:        fault.Invalid,
	http.StatusTooManyRequests:            fault.Exhausted,
	http.StatusUnavailableForLegalReasons: fault.NotFound,
}

// Classify says what the error of a call means. An error that has a kind
// already, as a token source's, keeps it.
func Classify(err error) Outcome {
	if e, ok := errors.AsType[*github.RateLimitError](err); ok {
		if e.Rate.Reset.IsZero() {
			return slowDown(e.Response, unstatedWait)
		}
		return limited(e.Response, e.Rate.Reset.Time)
	}
	if e, ok := errors.AsType[*github.AbuseRateLimitError](err); ok {
		wait := unstatedWait
		if e.RetryAfter != nil {
			wait = max(*e.RetryAfter, 0)
		}
		return slowDown(e.Response, wait)
	}
	if e, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return answered(e)
	}
	if e, ok := errors.AsType[*github.TwoFactorAuthError](err); ok {
		return answered((*github.ErrorResponse)(e))
	}
	if _, ok := errors.AsType[*github.AcceptedError](err); ok {
		return Outcome{Kind: fault.Unavailable, Retry: true, Text: "GitHub is still working on the answer"}
	}
	return unanswered(err)
}

// answered is for what GitHub said itself.
func answered(e *github.ErrorResponse) Outcome {
	resp := e.Response
	status := resp.StatusCode
	if status == http.StatusForbidden || status == http.StatusTooManyRequests {
		if wait, ok := retryAfter(resp); ok {
			return slowDown(resp, wait)
		}
		if reset, ok := rateReset(resp); ok {
			return limited(resp, reset)
		}
		// The message alone tells a limit from a missing permission where a proxy
		// has dropped the headers: "API rate limit exceeded for installation ID 1",
		// "You have exceeded a secondary rate limit".
		if status == http.StatusTooManyRequests || strings.Contains(strings.ToLower(e.Message), "rate limit") {
			return slowDown(resp, unstatedWait)
		}
	}
	if status >= 500 {
		wait, _ := retryAfter(resp)
		return Outcome{
			Kind: fault.Unavailable, Retry: true, After: wait,
			Text: fmt.Sprintf("GitHub had trouble and could not %s: %d %s", describe(resp.Request), status, http.StatusText(status)),
		}
	}
	kind := kinds[status]
	return Outcome{
		Kind:      kind,
		Retry:     kind == fault.Unavailable,
		Suspended: suspended(e),
		Text:      fmt.Sprintf("GitHub did not %s: %s", describe(resp.Request), reason(e)),
	}
}

// suspended tells GitHub's "This installation has been suspended" from "Sorry.
// Your account was suspended", which no owner's click ends.
func suspended(e *github.ErrorResponse) bool {
	said := strings.ToLower(e.Message)
	return e.Response.StatusCode == http.StatusForbidden && strings.Contains(said, "installation") && strings.Contains(said, "suspended")
}

// reason is what GitHub says about a refusal, and what a person can do.
func reason(e *github.ErrorResponse) string {
	said := messages(e)
	switch e.Response.StatusCode {
	case http.StatusUnauthorized:
		return "it does not accept the credentials (" + said + ")"
	case http.StatusForbidden:
		if suspended(e) {
			return "the App's installation is suspended; an owner of the account can resume it (" + said + ")"
		}
		// https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api:
		// "contents=read", alternatives parted by ";".
		if wanted := e.Response.Header.Get("X-Accepted-Github-Permissions"); wanted != "" && strings.Contains(said, "not accessible") {
			return "the App lacks the permission " + strings.ReplaceAll(wanted, "; ", " or ") +
				"; grant it in the App's settings and have the account accept it (" + said + ")"
		}
	}
	return said
}

func messages(e *github.ErrorResponse) string {
	said := []string{e.Message}
	if e.Message == "" {
		said[0] = fmt.Sprintf("%d %s", e.Response.StatusCode, http.StatusText(e.Response.StatusCode))
	}
	for _, detail := range e.Errors {
		switch {
		case detail.Message != "":
			said = append(said, detail.Message)
		case detail.Field != "":
			said = append(said, detail.Field+" "+strings.ReplaceAll(detail.Code, "_", " "))
		}
	}
	return strings.Join(said, "; ")
}

func limited(resp *http.Response, reset time.Time) Outcome {
	return Outcome{
		Kind: fault.Exhausted, Retry: true,
		After: max(time.Until(reset), 0) + time.Second, // the reset is given in whole seconds
		Text:  fmt.Sprintf("GitHub's rate limit is used up until %s; could not %s", reset.UTC().Format("15:04:05 MST"), describe(resp.Request)),
	}
}

func slowDown(resp *http.Response, wait time.Duration) Outcome {
	return Outcome{
		Kind: fault.Exhausted, Retry: true, After: wait,
		Text: fmt.Sprintf("GitHub asks to slow down for %v; could not %s", wait.Round(time.Second), describe(resp.Request)),
	}
}

func retryAfter(resp *http.Response) (time.Duration, bool) {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	return time.Duration(seconds) * time.Second, err == nil && seconds >= 0
}

func rateReset(resp *http.Response) (time.Time, bool) {
	seconds, err := strconv.ParseInt(resp.Header.Get("X-Ratelimit-Reset"), 10, 64)
	return time.Unix(seconds, 0), err == nil && resp.Header.Get("X-Ratelimit-Remaining") == "0"
}

// unanswered is for calls that got no answer, or half of one.
func unanswered(err error) Outcome {
	cause, call := err, ""
	if e, ok := errors.AsType[*url.Error](err); ok {
		cause = e.Err
		if address, parseErr := url.Parse(e.URL); parseErr == nil {
			call = "; could not " + describe(&http.Request{Method: strings.ToUpper(e.Op), URL: address})
		}
	}
	network, isNetwork := errors.AsType[net.Error](cause)
	_, halfJSON := errors.AsType[*json.SyntaxError](cause)
	again := Outcome{Kind: fault.Unavailable, Retry: true}
	switch token, noToken := errors.AsType[*tokenError](cause); {
	case errors.Is(err, context.Canceled):
		again.Text = "the call to GitHub was stopped" + call
	case noToken:
		kind := fault.KindOf(token)
		return Outcome{
			Kind:  kind,
			Retry: kind == fault.Unavailable || kind == fault.Exhausted || kind == fault.Internal,
			Text:  token.Error() + call,
		}
	case errors.Is(err, context.DeadlineExceeded), isNetwork && network.Timeout():
		again.Text = "GitHub took too long to answer" + call
	case fault.KindOf(cause) != fault.Internal:
		kind := fault.KindOf(cause)
		return Outcome{Kind: kind, Retry: kind == fault.Unavailable || kind == fault.Exhausted, Text: cause.Error()}
	case halfJSON, errors.Is(cause, io.ErrUnexpectedEOF), errors.Is(cause, io.EOF):
		again.Text = "GitHub's answer was cut off" + call
	case isNetwork, call != "":
		again.Text = "GitHub cannot be reached (" + cause.Error() + ")" + call
	default:
		return Outcome{Kind: fault.Internal, Text: err.Error()}
	}
	return again
}
