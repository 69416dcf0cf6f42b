package githubsim_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

func (w *world) head() string {
	w.t.Helper()
	sha, err := w.sim.Head("acme", "shop", "main")
	w.must(err)
	return sha
}

// tell sends a status for main's head.
func (w *world) tell(client *github.Client) (*github.Response, error) {
	_, answer, err := client.Repositories.CreateStatus(w.t.Context(), "acme", "shop", w.head(), &github.RepoStatus{State: new("success")})
	return answer, err
}

func (w *world) told() int {
	w.t.Helper()
	history, err := w.sim.StatusHistory("acme", "shop", w.head())
	w.must(err)
	return len(history)
}

func (w *world) lastCall() githubsim.Call {
	calls := w.sim.Calls()
	return calls[len(calls)-1]
}

func TestCallsGoWrongAsAsked(t *testing.T) {
	for name, test := range map[string]struct {
		wrong       githubsim.Misbehaviour
		status      int // of the call's record
		outcome     int
		told        int // statuses that GitHub has afterwards
		holds       func(*github.Response, error) bool
		explanation string
	}{
		"502": {
			githubsim.Misbehaviour{Status: 502},
			502, 0, 0,
			func(_ *github.Response, err error) bool { return statusOf(err) == 502 }, "502",
		},
		"502 after it was carried out": {
			githubsim.Misbehaviour{Status: 502, CarriedOut: true},
			502, 201, 1,
			func(_ *github.Response, err error) bool { return statusOf(err) == 502 }, "502",
		},
		"cut before": {
			githubsim.Misbehaviour{Cut: true},
			0, 0, 0,
			func(_ *github.Response, err error) bool { return errors.Is(err, io.EOF) }, "EOF",
		},
		"cut after it was carried out": {
			githubsim.Misbehaviour{Cut: true, CarriedOut: true},
			0, 201, 1,
			func(_ *github.Response, err error) bool { return errors.Is(err, io.EOF) }, "EOF",
		},
		"half an answer": {
			githubsim.Misbehaviour{Half: true},
			201, 201, 1,
			func(_ *github.Response, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, "unexpected EOF",
		},
		"403 with Retry-After": {
			githubsim.Misbehaviour{Status: 403, RetryAfter: 1500 * time.Millisecond},
			403, 0, 0,
			func(_ *github.Response, err error) bool {
				var slower *github.AbuseRateLimitError
				return errors.As(err, &slower) && slower.GetRetryAfter() == 2*time.Second
			}, "AbuseRateLimitError, 2s",
		},
		"429 with Retry-After": {
			githubsim.Misbehaviour{Status: 429, RetryAfter: time.Second},
			429, 0, 0,
			func(answer *github.Response, err error) bool {
				return statusOf(err) == 429 && answer.Header.Get("Retry-After") == "1"
			}, "429, 1s",
		},
		"401": {
			githubsim.Misbehaviour{Status: 401},
			401, 0, 0,
			func(_ *github.Response, err error) bool { return statusOf(err) == 401 }, "401",
		},
		"latency": {
			githubsim.Misbehaviour{Latency: time.Millisecond, Jitter: time.Millisecond},
			201, 201, 1,
			func(_ *github.Response, err error) bool { return err == nil }, "no error",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			shop := w.shop()
			test.wrong.Times = 1
			w.sim.Misbehave(test.wrong)
			answer, err := w.tell(shop)
			if !test.holds(answer, err) {
				t.Errorf("got %v, error %v, want %s", answer, err, test.explanation)
			}
			if got := w.lastCall(); got.Status != test.status || got.Outcome != test.outcome || w.told() != test.told {
				t.Errorf("recorded as %d of %d with %d statuses, want %d of %d with %d", got.Status, got.Outcome, w.told(), test.status, test.outcome, test.told)
			}
			if _, err := w.tell(w.client(w.token(nil))); err != nil {
				t.Errorf("it was to happen once, yet: %v", err)
			}
		})
	}
}

func statusOf(err error) int {
	var problem *github.ErrorResponse
	if !errors.As(err, &problem) {
		return 0
	}
	return problem.Response.StatusCode
}

func TestTheNextThreeStatusesFail(t *testing.T) {
	w := newWorld(t)
	shop := w.shop()
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "POST /repos/{owner}/{repo}/statuses/{sha}", Times: 3, Status: 502})
	for i := range 4 {
		if _, _, err := shop.Repositories.Get(t.Context(), "acme", "shop"); err != nil {
			t.Errorf("another route: %v", err)
		}
		want := 0
		if i < 3 {
			want = 502
		}
		if _, err := w.tell(shop); statusOf(err) != want {
			t.Errorf("call %d: got %v, want %d", i, err, want)
		}
	}
}

func TestMisbehaviourIsLimitedToWhatItIsAbout(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.AddRepository(newRepository("acme", "second")))
	shop := w.shop()
	undo := w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET /repos/acme/second", Status: 500})
	get := func(repo string) int {
		_, _, err := shop.Repositories.Get(t.Context(), "acme", repo)
		return statusOf(err)
	}
	if a, b := get("shop"), get("second"); a != 0 || b != 500 {
		t.Errorf("got %d and %d", a, b)
	}
	undo()
	undo() // does no harm
	if got := get("second"); got != 0 {
		t.Errorf("after undo: got %d", got)
	}
	w.sim.Misbehave(githubsim.Misbehaviour{Status: 500})
	w.sim.Misbehave(githubsim.Misbehaviour{Status: 503})
	if got := get("second"); got != 500 {
		t.Errorf("the first of two that spoil counts: got %d", got)
	}
	w.sim.Behave()
	if got := get("second"); got != 0 {
		t.Errorf("after Behave: got %d", got)
	}
}

func TestShareIsSeeded(t *testing.T) {
	draw := func(seed uint64) string {
		w := newWorld(t, func(c *githubsim.Config) {
			c.Seed, c.Misbehaviours = seed, []githubsim.Misbehaviour{{Route: "GET /meta", Share: 0.25, Status: 502}}
		})
		var fates strings.Builder
		for range 400 {
			_, _, err := w.client("").Meta.Get(t.Context())
			fates.WriteByte("ox"[min(statusOf(err), 1)])
		}
		return fates.String()
	}
	first := draw(1)
	if first != draw(1) {
		t.Error("the same seed gave another course")
	}
	if first == draw(2) {
		t.Error("another seed gave the same course")
	}
	if share := strings.Count(first, "x"); share < 70 || share > 130 {
		t.Errorf("%d of 400 went wrong, want about 100", share)
	}
}

// A caller that gives up does not take back what it asked for.
func TestSlowCallIsCarriedOutThoughTheCallerLeft(t *testing.T) {
	w := newWorld(t)
	head, token := w.head(), w.token(nil)
	w.sim.Misbehave(githubsim.Misbehaviour{Route: "POST", Times: 1, Latency: time.Hour})
	client, err := github.NewClient(&http.Client{Timeout: 50 * time.Millisecond}).WithEnterpriseURLs(w.url, w.url)
	w.must(err)
	_, _, err = client.WithAuthToken(token).Repositories.CreateStatus(t.Context(), "acme", "shop", head, &github.RepoStatus{State: new("success")})
	if err == nil {
		t.Fatal("an hour was over soon")
	}
	eventually(t, "the status is told", func() bool { return w.told() == 1 })
}

func TestPeopleMakeItMisbehave(t *testing.T) {
	w := newWorld(t)
	post := func(path string, form url.Values) (int, string) { return w.fetch(http.MethodPost, path, "*/*", form) }
	code, said := post("/sim/misbehave", url.Values{
		"route": {"GET /meta"}, "share": {"0.999999"}, "times": {"3"}, "status": {"503"}, "retry_after": {"2s"}, "latency": {"1ms"}, "jitter": {"1ms"},
	})
	if want := "wait 1ms to 2ms, answer 503, with Retry-After 2s, for 99.9999 %, of GET /meta, 3 times\n"; code != http.StatusOK || said != want {
		t.Errorf("got %d %q, want %q", code, said, want)
	}
	if _, answer, err := w.client("").Meta.Get(t.Context()); statusOf(err) != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "2" {
		t.Errorf("got %v", err)
	}
	if code, said := w.fetch(http.MethodGet, "/sim/misbehave", "*/*", nil); code != http.StatusOK || !strings.Contains(said, "answer 503") {
		t.Errorf("got %d %q", code, said)
	}
	if code, said := post("/sim/behave", nil); code != http.StatusOK || said != "all is well\n" {
		t.Errorf("got %d %q", code, said)
	}
	if _, _, err := w.client("").Meta.Get(t.Context()); err != nil {
		t.Errorf("after behave: %v", err)
	}
	for want, form := range map[string]url.Values{
		`there is no field "sttaus"; there are carried_out, cut, cut_after, half, hang_after, jitter, latency, retry_after, route, share, status, times`: {"sttaus": {"502"}},
		"share is a number above 0, up to 1":       {"share": {"25"}, "status": {"502"}},
		"times is a number above 0":                {"times": {"often"}},
		"status is an HTTP status from 400 to 599": {"status": {"200"}},
		`latency is a time like "300ms" or "2s"`:   {"latency": {"3"}},
		"cut is true or false":                     {"cut": {"maybe"}},
		"nothing would go wrong: give status, cut, half, cut_after, hang_after, latency or jitter": {"route": {"POST"}},
	} {
		if code, said := post("/sim/misbehave", form); code != http.StatusUnprocessableEntity || said != want+"\n" {
			t.Errorf("got %d %q, want %q", code, said, want)
		}
	}
}
