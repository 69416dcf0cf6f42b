package reporter

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// failure is what a failed attempt means for its target.
type failure struct {
	state      reporterv1.Target_State // failing, paused or kept
	retryAfter time.Duration           // the pause that GitHub asks for; 0: none in particular
	failures   int                     // attempts of the installation that failed in a row; 0: not known
	text       string                  // for people
	untouched  bool                    // GitHub did nothing
}

// classify says what an error means. What is nobody's decision, and credentials
// that an operator can mend, are tried again.
func classify(err error) failure {
	outcome := kitgithub.Classify(err)
	why := failure{state: reporterv1.Target_STATE_FAILING, retryAfter: outcome.After, text: outcome.Text}
	why.untouched = outcome.Kind != fault.Unavailable && outcome.Kind != fault.Internal
	_, suspended := errors.AsType[*suspendedError](err)
	_, cached := errors.AsType[*cachedTokenError](err)
	switch {
	case cached: // a new token is asked for first
	case suspended, outcome.Suspended:
		why.state = reporterv1.Target_STATE_PAUSED
	case outcome.Retry:
	case slices.Contains([]fault.Kind{fault.Denied, fault.NotFound, fault.Invalid, fault.Conflict}, outcome.Kind):
		why.state = reporterv1.Target_STATE_KEPT
	}
	return why
}

// fault is the error for the person who asked for the call that failed.
func (f failure) fault() error {
	kind := fault.Unavailable
	if f.state == reporterv1.Target_STATE_KEPT || f.state == reporterv1.Target_STATE_PAUSED {
		kind = fault.Conflict
	}
	return fault.New(kind, f.text)
}

// refusesText reports whether GitHub may have refused a call for its wording.
// GitHub does not say so in one way, so it is each refusal of a request's content
// but those that are known to have another cause.
func refusesText(err error) bool {
	said, refused := refusal(err)
	return refused && !slices.ContainsFunc([]string{"No commit found", "No ref found", "maximum number of statuses"}, func(other string) bool {
		return strings.Contains(said, other)
	})
}

// refusal is why GitHub finds the content of a request invalid.
// https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api#validation-failed
func refusal(err error) (said string, refused bool) {
	response, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok || response.Response.StatusCode != http.StatusUnprocessableEntity && response.Response.StatusCode != http.StatusBadRequest {
		return "", false
	}
	all := []string{response.Message}
	for _, detail := range response.Errors {
		all = append(all, detail.Message, detail.Field+" "+detail.Code)
	}
	return strings.Join(all, "\n"), true
}

// cachedTokenError is a refusal of a token that was there before the attempt. It
// may allow less than a new one would, as where permissions were accepted since.
type cachedTokenError struct{ cause error }

func (e *cachedTokenError) Error() string { return e.cause.Error() }
func (e *cachedTokenError) Unwrap() error { return e.cause }
