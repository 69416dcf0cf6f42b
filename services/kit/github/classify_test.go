package github

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	gogithub "github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/fault"
)

func TestAnswersAreClassified(t *testing.T) {
	began := time.Now()
	reset := began.Add(time.Hour)
	for _, c := range []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		want    Outcome // After is compared within two seconds, and what the test has taken
	}{
		{
			name: "server error", status: 500, body: `oops`,
			want: Outcome{Kind: fault.Unavailable, Retry: true, Text: "GitHub had trouble and could not set a commit status in octo/shop: 500 Internal Server Error"},
		},
		{
			name: "maintenance with a time", status: 503, headers: map[string]string{"Retry-After": "120"},
			want: Outcome{Kind: fault.Unavailable, Retry: true, After: 2 * time.Minute, Text: "GitHub had trouble and could not set a commit status in octo/shop: 503 Service Unavailable"},
		},
		{
			name: "primary rate limit", status: 403, body: `{"message":"API rate limit exceeded"}`,
			headers: map[string]string{"X-Ratelimit-Limit": "5000", "X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": strconv.FormatInt(reset.Unix(), 10)},
			want:    Outcome{Kind: fault.Exhausted, Retry: true, After: time.Hour, Text: "GitHub's rate limit is used up until " + reset.UTC().Format("15:04:05") + " UTC; could not set a commit status in octo/shop"},
		},
		{
			name: "primary rate limit as 429", status: 429, body: `{"message":"API rate limit exceeded"}`,
			headers: map[string]string{"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": strconv.FormatInt(reset.Unix(), 10)},
			want:    Outcome{Kind: fault.Exhausted, Retry: true, After: time.Hour, Text: "GitHub's rate limit is used up until " + reset.UTC().Format("15:04:05") + " UTC; could not set a commit status in octo/shop"},
		},
		{
			name: "secondary rate limit", status: 403, headers: map[string]string{"Retry-After": "30"},
			body: `{"message":"You have exceeded a secondary rate limit","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: 30 * time.Second, Text: "GitHub asks to slow down for 30s; could not set a commit status in octo/shop"},
		},
		{
			name: "secondary rate limit without a time", status: 403,
			body: `{"message":"You have exceeded a secondary rate limit","documentation_url":"https://docs.github.com/rest#secondary-rate-limits"}`,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: time.Minute, Text: "GitHub asks to slow down for 1m0s; could not set a commit status in octo/shop"},
		},
		{
			name: "403 with Retry-After alone", status: 403, headers: map[string]string{"Retry-After": "5"}, body: `{"message":"wait"}`,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: 5 * time.Second, Text: "GitHub asks to slow down for 5s; could not set a commit status in octo/shop"},
		},
		{
			name: "429 with nothing", status: 429,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: time.Minute, Text: "GitHub asks to slow down for 1m0s; could not set a commit status in octo/shop"},
		},
		{
			name: "permission missing", status: 403, headers: map[string]string{"X-Accepted-GitHub-Permissions": "statuses=write; contents=write"},
			body: `{"message":"Resource not accessible by integration"}`,
			want: Outcome{Kind: fault.Denied, Text: "GitHub did not set a commit status in octo/shop: the App lacks the permission statuses=write or contents=write; grant it in the App's settings and have the account accept it (Resource not accessible by integration)"},
		},
		{
			name: "suspended", status: 403, body: `{"message":"This installation has been suspended"}`,
			want: Outcome{Kind: fault.Denied, Suspended: true, Text: "GitHub did not set a commit status in octo/shop: the App's installation is suspended; an owner of the account can resume it (This installation has been suspended)"},
		},
		{
			name: "account suspended", status: 403, body: `{"message":"Sorry. Your account was suspended."}`,
			want: Outcome{Kind: fault.Denied, Text: "GitHub did not set a commit status in octo/shop: Sorry. Your account was suspended."},
		},
		{
			name: "limit told by its message alone", status: 403, body: `{"message":"You have exceeded a secondary rate limit and have been temporarily blocked from content creation."}`,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: time.Minute, Text: "GitHub asks to slow down for 1m0s; could not set a commit status in octo/shop"},
		},
		{
			name: "limit without a reset", status: 403, headers: map[string]string{"X-Ratelimit-Limit": "5000", "X-Ratelimit-Remaining": "0"},
			body: `{"message":"API rate limit exceeded for installation ID 1."}`,
			want: Outcome{Kind: fault.Exhausted, Retry: true, After: time.Minute, Text: "GitHub asks to slow down for 1m0s; could not set a commit status in octo/shop"},
		},
		{
			name: "not found", status: 404, body: `{"message":"Not Found"}`,
			want: Outcome{Kind: fault.NotFound, Text: "GitHub did not set a commit status in octo/shop: Not Found"},
		},
		{
			name: "gone", status: 410, body: `no JSON`,
			want: Outcome{Kind: fault.NotFound, Text: "GitHub did not set a commit status in octo/shop: 410 Gone"},
		},
		{
			name: "blocked", status: 451, body: `{"message":"Repository access blocked"}`,
			want: Outcome{Kind: fault.NotFound, Text: "GitHub did not set a commit status in octo/shop: Repository access blocked"},
		},
		{
			name: "conflict", status: 409, body: `{"message":"Git Repository is empty."}`,
			want: Outcome{Kind: fault.Conflict, Text: "GitHub did not set a commit status in octo/shop: Git Repository is empty."},
		},
		{
			name: "invalid", status: 422,
			body: `{"message":"Validation Failed","errors":[{"resource":"Status","code":"custom","message":"This SHA and context has reached the maximum number of statuses."},{"resource":"Status","field":"state","code":"missing_field"},"odd"]}`,
			want: Outcome{Kind: fault.Invalid, Text: "GitHub did not set a commit status in octo/shop: Validation Failed; This SHA and context has reached the maximum number of statuses.; state missing field; odd"},
		},
		{
			name: "teapot", status: 418,
			want: Outcome{Kind: fault.Internal, Text: "GitHub did not set a commit status in octo/shop: 418 I'm a teapot"},
		},
		{
			name: "accepted", status: 202,
			want: Outcome{Kind: fault.Unavailable, Retry: true, Text: "GitHub is still working on the answer"},
		},
		{
			name: "half an answer", status: 201, body: `{"state":`,
			want: Outcome{Kind: fault.Unavailable, Retry: true, Text: "GitHub's answer was cut off"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := fakeGitHub(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				for name, value := range c.headers {
					w.Header().Set(name, value)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, _, err := newClient(t, url, &tokens{}).Repositories.CreateStatus(t.Context(), "octo", "shop", "abc", &gogithub.RepoStatus{})
			got := Classify(err)
			if off := got.After - c.want.After; off < -2*time.Second-time.Since(began) || off > 2*time.Second {
				t.Errorf("after %v, want %v", got.After, c.want.After)
			}
			got.After = c.want.After
			if got != c.want {
				t.Errorf("outcome\n  %+v\nwant\n  %+v", got, c.want)
			}
		})
	}
}

func TestCallsWithoutAnAnswerMayBeTriedAgain(t *testing.T) {
	url, _ := fakeGitHub(t, func(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() })
	client := newClient(t, url, &tokens{})

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, _, late := client.Repositories.Get(ctx, "octo", "shop")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, _, stopped := client.Repositories.Get(ctx, "octo", "shop")
	_, _, unreachable := newClient(t, "http://127.0.0.1:1", &tokens{}).Repositories.Get(t.Context(), "octo", "shop")

	for want, err := range map[string]error{
		"GitHub took too long to answer": late,
		"the call to GitHub was stopped": stopped,
		"GitHub cannot be reached (dial tcp 127.0.0.1:1: connect: connection refused); could not read octo/shop": unreachable,
	} {
		if got := Classify(err); got != (Outcome{Kind: fault.Unavailable, Retry: true, Text: want}) {
			t.Errorf("outcome of %v\n  %+v\nwant\n  %s", err, got, want)
		}
	}
}

func TestErrorsOfOurOwn(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{fault.New(fault.NotFound, "no such installation"), Outcome{Kind: fault.NotFound, Text: "no such installation"}},
		{fault.New(fault.Unavailable, "config is away"), Outcome{Kind: fault.Unavailable, Retry: true, Text: "config is away"}},
		{io.ErrShortBuffer, Outcome{Kind: fault.Internal, Text: "short buffer"}},
	} {
		if got := Classify(fmt.Errorf("%w", c.err)); got != c.want {
			t.Errorf("outcome %+v, want %+v", got, c.want)
		}
	}
}
