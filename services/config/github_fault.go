package config

import (
	"errors"
	"net/http"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
)

// githubFault says in words and as a kind why a call to GitHub failed. Where
// GitHub does not accept our credentials the operator has to act, not the caller,
// who may repeat the call.
func githubFault(err error) error {
	outcome := kitgithub.Classify(err)
	kind := outcome.Kind
	if kind == fault.Unauthenticated || outcome.Retry {
		kind = fault.Unavailable
	}
	return fault.Newf(kind, "%s", outcome.Text)
}

// appFault is githubFault for calls that the App's key signs.
func appFault(err error) error {
	if !keyRefused(err) {
		return githubFault(err)
	}
	return fault.Newf(fault.Unavailable, "GitHub does not accept the App's key: "+
		"FORGE_GITHUB_APP_ID and FORGE_GITHUB_PRIVATE_KEY must be those of one App, from its settings page, and this machine's clock right: %s",
		kitgithub.Classify(err).Text)
}

// keyRefused reports whether GitHub does not know the App: it answers 401 to a
// wrong key, and 404 with this message to a wrong id.
func keyRefused(err error) bool {
	refusal, ok := errors.AsType[*github.ErrorResponse](err)
	return ok && (refusal.Response.StatusCode == http.StatusUnauthorized || refusal.Message == "Integration not found")
}

// statusOf returns the HTTP status that GitHub refused a call with; 0 where it did
// not answer.
func statusOf(err error) int {
	if refusal, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return refusal.Response.StatusCode
	}
	return 0
}
