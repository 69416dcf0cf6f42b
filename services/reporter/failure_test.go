package reporter

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// asked is a thing of each kind that GitHub is told, and the first call that
// makes it.
type asked struct {
	path, call string // of the call, and as people read it
	ask        func(*world, *Service)
	made       func(*world) int
}

func eachKind() map[reporterv1.Target_Kind]asked {
	return map[reporterv1.Target_Kind]asked{
		reporterv1.Target_KIND_STATUS: {
			path: "/statuses/", call: "set a commit status in octo/shop",
			ask:  func(w *world, s *Service) { w.report(s, 1, like(w.build(good), good)) },
			made: func(w *world) int { return len(w.history()) },
		},
		reporterv1.Target_KIND_CHECK_RUN: {
			path: "/check-runs", call: "create a check run in octo/shop",
			ask:  func(w *world, s *Service) { w.report(s, 1, like(w.build(good), good)) },
			made: func(w *world) int { return len(w.runs()) },
		},
		reporterv1.Target_KIND_DEPLOYMENT: {
			path: "/deployments", call: "record a deployment in octo/shop",
			ask:  func(w *world, s *Service) { w.report(s, 1, w.deploy("d1", "staging", good)) },
			made: func(w *world) int { return len(w.deployments()) },
		},
		reporterv1.Target_KIND_PROMOTION: {
			path: "/pulls", call: "open a pull request in octo/shop",
			ask: func(w *world, s *Service) { w.promote(s, w.ahead()) },
			made: func(w *world) int {
				list, err := w.sim.PullRequests("octo", "shop")
				w.must(err)
				return len(list)
			},
		},
		reporterv1.Target_KIND_COMMENT: {
			path: "/comments", call: "react to a comment in octo/shop",
			ask: func(w *world, s *Service) {
				_, err := s.Answer(w.t.Context(), w.question())
				w.must(err)
			},
			made: func(w *world) int { return len(w.comments(1)) - 1 },
		},
	}
}

// failures is what each response of GitHub means, whatever it was told.
var failures = []struct {
	name    string
	status  int // 0: the connection is cut
	headers []string
	body    string

	class reporterv1.Target_State
	pause time.Duration // until the next try; 0: none comes by itself
	calls int           // of one try
	shows string        // %s is the call
}{
	// Try again.
	{"cut", 0, nil, "", failing, time.Second, 1, "GitHub's answer was cut off; could not %s"},
	{"error", 500, nil, "oops", failing, time.Second, 1, "GitHub had trouble and could not %s: 500 Internal Server Error"},
	{"bad gateway", 502, nil, "<html>", failing, time.Second, 1, "GitHub had trouble and could not %s: 502 Bad Gateway"},
	{"gateway timeout", 504, nil, "", failing, time.Second, 1, "GitHub had trouble and could not %s: 504 Gateway Timeout"},
	{"maintenance", 503, []string{"Retry-After", "120"}, "", failing, 2 * time.Minute, 1, "GitHub had trouble and could not %s: 503 Service Unavailable"},
	{"half an answer", 201, nil, `{"id":`, failing, time.Second, 1, "GitHub's answer was cut off"},

	// Wait, all of the installation together.
	{
		"primary limit", 403,
		[]string{"X-Ratelimit-Limit", "5000", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "in 60"},
		`{"message":"API rate limit exceeded for installation ID 1."}`, failing, time.Minute, 1, "GitHub's rate limit is used up until",
	},
	{
		"primary limit as 429", 429,
		[]string{"X-Ratelimit-Limit", "5000", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "in 60"},
		`{"message":"API rate limit exceeded for installation ID 1."}`, failing, time.Minute, 1, "GitHub's rate limit is used up until",
	},
	{"secondary limit", 403, []string{"Retry-After", "17"}, `{"message":"You have exceeded a secondary rate limit"}`, failing, 17 * time.Second, 1, "GitHub asks to slow down for 17s; could not %s"},
	{"secondary limit as 429", 429, []string{"Retry-After", "3"}, `{"message":"slow"}`, failing, 3 * time.Second, 1, "GitHub asks to slow down for 3s; could not %s"},
	{"secondary limit without a time", 403, nil, `{"message":"You have exceeded a secondary rate limit and have been temporarily blocked from content creation."}`, failing, time.Minute, 1, "GitHub asks to slow down for 1m0s; could not %s"},
	{"limit without anything", 429, nil, "", failing, time.Minute, 1, "GitHub asks to slow down for 1m0s; could not %s"},

	// Renew the token, once; then somebody has to mend the App's credentials.
	{"twice 401", 401, nil, `{"message":"Bad credentials"}`, failing, time.Second, 2, "GitHub did not %s: it does not accept the credentials (Bad credentials)"},

	// A person has to act; until then it is tried ever more rarely.
	{
		"permission", 403,
		[]string{"X-Accepted-Github-Permissions", "checks=write; statuses=write"},
		`{"message":"Resource not accessible by integration"}`, failing, firstRefusedPause, 1,
		"GitHub did not %s: the App lacks the permission checks=write or statuses=write; grant it in the App's settings and have the account accept it (Resource not accessible by integration)",
	},
	{
		"suspended", 403, nil, `{"message":"This installation has been suspended"}`, paused, time.Second, 1,
		"GitHub did not %s: the App's installation is suspended; an owner of the account can resume it (This installation has been suspended)",
	},
	{"archived", 403, nil, `{"message":"Repository was archived so is read-only."}`, failing, firstRefusedPause, 1, "GitHub did not %s: Repository was archived so is read-only."},
	{"not this address", 403, nil, `{"message":"Although you appear to have the correct authorization credentials, the octo organization has an IP allow list enabled"}`, failing, firstRefusedPause, 1, "IP allow list"},

	// Refused: tried again ever more rarely. Where it may have been the wording, plain words are tried at once.
	{"gone", 404, nil, `{"message":"Not Found"}`, failing, firstRefusedPause, 1, "GitHub did not %s: Not Found"},
	{"gone for good", 410, nil, `{"message":"Issues are disabled for this repo"}`, failing, firstRefusedPause, 1, "GitHub did not %s: Issues are disabled for this repo"},
	{"blocked by law", 451, nil, `{"message":"Repository access blocked"}`, failing, firstRefusedPause, 1, "GitHub did not %s: Repository access blocked"},
	{"conflict", 409, nil, `{"message":"Conflict"}`, failing, firstRefusedPause, 1, "GitHub did not %s: Conflict"},
	{"no such commit", 422, nil, `{"message":"No commit found for SHA: 3f2a"}`, failing, firstRefusedPause, 1, "GitHub did not %s: No commit found for SHA: 3f2a"},
	{
		"too many statuses", 422, nil, `{"message":"Validation Failed","errors":[{"resource":"Status","code":"custom","message":"This SHA and context has reached the maximum number of statuses."}]}`, failing, firstRefusedPause, 1,
		"GitHub did not %s: Validation Failed; This SHA and context has reached the maximum number of statuses.",
	},
	{"field", 422, nil, `{"message":"Validation Failed","errors":[{"resource":"Deployment","field":"environment","code":"missing_field"}]}`, failing, firstRefusedPause, 2, "GitHub did not %s: Validation Failed; environment missing field"},
	{"bad request", 400, nil, `{"message":"Problems parsing JSON"}`, failing, firstRefusedPause, 2, "GitHub did not %s: Problems parsing JSON"},
}

func TestEachResponseOfGitHubHasItsClass(t *testing.T) {
	for kind, thing := range eachKind() {
		for _, c := range failures {
			t.Run(kind.String()+"/"+c.name, func(t *testing.T) {
				w := newWorld(t)
				if kind == reporterv1.Target_KIND_CHECK_RUN {
					w.adjust = asChecks
				}
				s := w.reporter(sqlite(t))
				// What a token refuses that was there before is asked of a new one first.
				s.tokens.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
				var calls atomic.Int32
				answer := responding(c.status, c.headers, c.body)
				w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet || !strings.Contains(r.URL.Path, thing.path) {
						return false
					}
					calls.Add(1)
					return answer(rw, r)
				})
				thing.ask(w, s)
				w.background(s.Run)
				got := w.becomes(s, kind, c.class)
				want := strings.ReplaceAll(c.shows, "%s", thing.call)
				if !strings.Contains(got.GetError(), want) {
					t.Errorf("shows %q, want %q", got.GetError(), want)
				}
				if n := calls.Load(); int(n) != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
				next := got.GetNextTryTime().AsTime().Sub(w.clock.Now())
				if got.GetNextTryTime() == nil {
					next = 0
				}
				if next < c.pause || next > c.pause+2*time.Second {
					t.Errorf("next try in %v, want %v", next, c.pause)
				}
				if c.pause > time.Second && c.pause != firstRefusedPause { // GitHub named it, and it is the installation's
					if enters, again := s.limiter.acquire(w.installation, false); enters || again.Sub(w.clock.Now()).Round(time.Second) != next.Round(time.Second) {
						t.Errorf("another call of the installation may begin in %v, want %v", again.Sub(w.clock.Now()), next)
					}
				}

				// Once it is over it is told, and once.
				w.onTheWay(nil)
				w.clock.Advance(next + time.Millisecond) // which the database does not keep
				s.wake()
				kittest.Eventually(t, patience, func() error {
					for _, found := range w.targets(s) {
						if found.GetKind() == kind && found.GetState() == told {
							return nil
						}
					}
					w.tick(s) // the status may come first, and after a refusal calls are spaced
					return errors.New("GitHub is not told")
				})
				if got = w.becomes(s, kind, told); got.GetError() != "" || got.GetAttempts() != 0 {
					t.Errorf("told, and still %v", got)
				}
				if n := thing.made(w); n != 1 {
					t.Errorf("GitHub has %d", n)
				}
			})
		}
	}
}

// responding responds in GitHub's place. "in 60" is a time as of now, in seconds
// since 1970 and rounded up, so that it is not earlier when it is read.
func responding(status int, headers []string, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		for pair := range slices.Chunk(headers, 2) {
			value := pair[1]
			if seconds, ok := strings.CutPrefix(value, "in "); ok {
				later, _ := strconv.ParseInt(seconds, 10, 64)
				value = strconv.FormatInt(time.Now().Unix()+1+later, 10)
			}
			w.Header().Set(pair[0], value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
}

// becomes waits for the target of a kind to be in a state.
func (w *world) becomes(s *Service, kind reporterv1.Target_Kind, state reporterv1.Target_State) (found *reporterv1.Target) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() error {
		for _, found = range w.targets(s) {
			if found.GetKind() == kind && found.GetState() == state {
				return nil
			}
		}
		return fmt.Errorf("targets are %v", w.targets(s))
	})
	return found
}

// A repository whose name has the word in it is not a suspended installation.
func TestNameOfARepositorySuspendsNothing(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "octo", Name: "suspended-lamps", Files: map[string]string{"README.md": "lamps"}}))
	s := w.reporter(sqlite(t))
	w.onTheWay(responding(403, []string{"X-Accepted-Github-Permissions", "statuses=write"}, `{"message":"Resource not accessible by integration"}`))
	w.background(s.Run)
	b := like(w.build(good), good)
	b.Repository = &eventv1.Repository{Id: w.repository.GetId() + 1, Owner: "octo", Name: "suspended-lamps"}
	w.report(s, 1, b)
	if got := w.reaches(s, failing); !strings.Contains(got.GetError(), "lacks the permission statuses=write") {
		t.Errorf("shows %q", got.GetError())
	}
}

// While one target of an installation waits, none of its others calls, and
// another installation does.
func TestLimitHoldsBackAllOfAnInstallationAndNoOther(t *testing.T) {
	w := newWorld(t)
	other := w.sim.AddInstallation("kiwi")
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "kiwi", Name: "farm", Files: map[string]string{"README.md": "farm"}}))
	sha, err := w.sim.Head("kiwi", "farm", "main")
	w.must(err)
	ours := w.mint
	w.mintFor(other)
	theirs := w.mint
	w.minting(func(req *configv1.CreateTokenRequest) (string, error) {
		if req.GetInstallationId() == other {
			return theirs(req)
		}
		return ours(req)
	})
	s := w.reporter(sqlite(t))
	var calls atomic.Int32
	refuse := responding(403, []string{"Retry-After", "30"}, `{"message":"You have exceeded a secondary rate limit"}`)
	w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/repos/octo/") {
			return false
		}
		calls.Add(1)
		return refuse(rw, r)
	})
	w.background(s.Run)
	w.report(s, 1, like(w.build(good), good))
	w.reaches(s, failing)
	for one := range w.commits(3) {
		b := like(w.build(good), good)
		b.Sha = one
		w.report(s, 1, b)
	}
	farm := like(w.build(good), good)
	farm.Sha, farm.InstallationId = sha, other
	farm.Repository = &eventv1.Repository{Id: w.repository.GetId() + 1, Owner: "kiwi", Name: "farm"}
	w.report(s, 1, farm)
	w.becomes(s, reporterv1.Target_KIND_STATUS, told)
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls of the installation that was to wait", n)
	}
	w.onTheWay(nil)
	w.clock.Advance(30 * time.Second)
	w.allRight(s, w.commits(3))
}

// A token that was there before may know less than GitHub does by now, as which
// permissions were accepted since: a refusal of it is not final.
func TestRefusalOfAnOlderTokenIsNotFinal(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	old, err := w.mint(nil)
	w.must(err)
	w.report(s, 1, w.build(queued))
	w.publishAll(s)
	w.mintFor(w.installation)
	refuse := responding(403, []string{"X-Accepted-Github-Permissions", "statuses=write"}, `{"message":"Resource not accessible by integration"}`)
	w.onTheWay(func(rw http.ResponseWriter, r *http.Request) bool {
		return r.Header.Get("Authorization") == "Bearer "+old && refuse(rw, r)
	})
	w.background(s.Run)
	w.report(s, 2, like(w.build(good), good))
	w.reaches(s, failing)
	w.clock.Advance(firstPause)
	s.wake()
	w.reaches(s, told)
	w.wantHistory("pending: Queued", "success: Passed, 1 step")
}
