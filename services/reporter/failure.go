package reporter

import (
	"errors"
	"slices"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// failure is what a failed attempt means for its target.
type failure struct {
	state      reporterv1.Target_State // failing, paused or kept
	retryAfter time.Duration           // the pause that GitHub asks for; 0: none in particular
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

// cachedTokenError is a refusal of a token that was there before the attempt. It
// may allow less than a new one would, as where permissions were accepted since.
type cachedTokenError struct{ cause error }

func (e *cachedTokenError) Error() string { return e.cause.Error() }
func (e *cachedTokenError) Unwrap() error { return e.cause }
