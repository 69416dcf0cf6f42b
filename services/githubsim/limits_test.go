package githubsim_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-github/v62/github"
	"google.golang.org/grpc/test/bufconn"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// inBubble tells a story in a world where hours pass at once. It has no webhooks, and connections in memory alone.
func inBubble(t *testing.T, config githubsim.Config, story func(*world)) {
	t.Helper()
	key := kittest.AppKey(t)
	synctest.Test(t, func(t *testing.T) {
		listener := bufconn.Listen(1 << 16)
		// A connection that waits for long may be closed just as it is used again.
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.DialContext(ctx) }}
		config.AppID, config.AppKey = appID, &key.PublicKey
		w := &world{t: t, key: key, clock: &clock{}, sim: githubsim.New(config), transport: transport}
		server := httptest.NewUnstartedServer(w.sim)
		w.must(server.Listener.Close())
		server.Listener = listener
		server.Start()
		w.url = server.URL
		t.Cleanup(func() {
			transport.CloseIdleConnections()
			server.Close()
			w.sim.Close()
		})
		w.must(w.sim.AddRepository(newRepository("acme", "shop")))
		w.installation = w.sim.AddInstallation("acme")
		story(w)
	})
}

func TestLeastTimeIsThatOfTheNarrowestLimit(t *testing.T) {
	published := githubsim.PublishedLimits()
	fast := published
	fast.Speed = 60
	for name, test := range map[string]struct {
		limits githubsim.Limits
		calls  int
		want   time.Duration
	}{
		"no limits":             {githubsim.Limits{}, 100_000, 0},
		"none":                  {published, 0, 0},
		"a minute's":            {published, 80, 0},
		"one more":              {published, 81, time.Minute},
		"an hour's":             {published, 500, 6 * time.Minute},
		"one more than that":    {published, 501, time.Hour},
		"600":                   {published, 600, 61 * time.Minute},
		"3 hours'":              {published, 1500, 2*time.Hour + 6*time.Minute},
		"600, 60 times as fast": {fast, 600, 61 * time.Second},
		"points alone":          {githubsim.Limits{Points: 900}, 181, time.Minute},
		"calls alone":           {githubsim.Limits{Calls: 5000}, 10_001, 2 * time.Hour},
	} {
		if got := test.limits.LeastTime(test.calls); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// A caller that is in no hurry to learn, but obeys, is through in the least time: what is refused costs it nothing.
func TestObedientCallerNeedsTheLeastTime(t *testing.T) {
	for name, speed := range map[string]float64{"as fast as GitHub": 1, "60 times as fast": 60} {
		t.Run(name, func(t *testing.T) {
			limits := githubsim.PublishedLimits()
			limits.Speed = speed
			inBubble(t, githubsim.Config{Limits: limits, TokenLife: 24 * time.Hour}, func(w *world) {
				token, start, refused := w.token(nil), time.Now(), 0
				for told := 0; told < 600; {
					_, err := w.tell(w.client(token)) // a new client forgets that it was refused
					var slower *github.AbuseRateLimitError
					switch {
					case errors.As(err, &slower):
						refused++
						<-time.After(slower.GetRetryAfter())
					case err != nil:
						w.t.Fatal(err)
					default:
						told++
					}
				}
				got, least := time.Since(start), w.sim.LeastTime(600)
				if got < least || got > least*13/10 {
					w.t.Errorf("took %v, the least is %v", got, least)
				}
				if refused < 2 || w.told() != 600 {
					w.t.Errorf("refused %d times, told %d", refused, w.told())
				}
			})
		})
	}
}

func TestUsedUpHourIsRefusedUntilItsEnd(t *testing.T) {
	for status, recognised := range map[int]bool{0: true, http.StatusTooManyRequests: false} {
		inBubble(t, githubsim.Config{TokenLife: 2 * time.Hour, Limits: githubsim.Limits{Calls: 3, Status: status}}, func(w *world) {
			token, ctx := w.token(nil), w.t.Context()
			get := func() (*github.Response, error) {
				_, answer, err := w.client(token).Repositories.Get(ctx, "acme", "shop")
				return answer, err
			}
			for range 3 {
				if _, err := get(); err != nil {
					w.t.Fatal(err)
				}
			}
			answer, err := get()
			var limited *github.RateLimitError
			if errors.As(err, &limited) != recognised {
				w.t.Errorf("status %d: got %v", status, err)
			}
			if answer.Rate.Remaining != 0 || answer.Rate.Limit != 3 || time.Until(answer.Rate.Reset.Time) != time.Hour || answer.Header.Get("Retry-After") != "" {
				w.t.Errorf("got %v, headers %v", answer.Rate, answer.Header)
			}
			if recognised && limited.Message != "API rate limit exceeded for installation ID "+strconv.FormatInt(w.installation, 10)+"." {
				w.t.Errorf("got %q", limited.Message)
			}
			if left, _, err := w.client(token).RateLimit.Get(ctx); err != nil || left.GetCore().Remaining != 0 {
				w.t.Errorf("to ask what is left costs nothing: got %v, error %v", left, err)
			}
			<-time.After(time.Until(answer.Rate.Reset.Time))
			if answer, err := get(); err != nil || answer.Rate.Remaining != 2 {
				w.t.Errorf("after the reset: got %v, error %v", answer.Rate, err)
			}
		})
	}
}

func TestPointsOfARouteAreLimited(t *testing.T) {
	inBubble(t, githubsim.Config{Limits: githubsim.PublishedLimits()}, func(w *world) {
		token, ctx := w.token(nil), w.t.Context()
		get := func() error {
			_, _, err := w.client(token).Repositories.Get(ctx, "acme", "shop")
			return err
		}
		for range 900 {
			w.must(get())
		}
		var slower *github.AbuseRateLimitError
		if err := get(); !errors.As(err, &slower) || slower.GetRetryAfter() != time.Minute {
			w.t.Errorf("got %v, want to wait a minute", err)
		}
		if _, _, err := w.client(token).Repositories.ListBranches(ctx, "acme", "shop", nil); err != nil {
			w.t.Errorf("another route: %v", err)
		}
		<-time.After(time.Minute)
		w.must(get())
	})
}

func TestCallsAtOnceAreLimited(t *testing.T) {
	inBubble(t, githubsim.Config{Limits: githubsim.Limits{AtOnce: 2}}, func(w *world) {
		token := w.token(nil)
		w.sim.Misbehave(githubsim.Misbehaviour{Route: "GET", Times: 2, Latency: time.Second})
		get := func() error {
			_, _, err := w.client(token).Repositories.Get(w.t.Context(), "acme", "shop")
			return err
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := get(); err != nil {
					w.t.Error(err)
				}
			})
		}
		synctest.Wait()
		var slower *github.AbuseRateLimitError
		if err := get(); !errors.As(err, &slower) {
			w.t.Errorf("a third at once: got %v", err)
		}
		both.Wait()
		w.must(get())
	})
}

func TestEachInstallationHasItsOwnLimits(t *testing.T) {
	inBubble(t, githubsim.Config{Limits: githubsim.Limits{Calls: 2}}, func(w *world) {
		w.must(w.sim.AddRepository(newRepository("zeta", "shop")))
		acme := w.token(nil)
		w.installation = w.sim.AddInstallation("zeta")
		zeta := w.token(nil)
		for owner, token := range map[string]string{"acme": acme, "zeta": zeta} {
			for call := range 3 {
				_, _, err := w.client(token).Repositories.Get(w.t.Context(), owner, "shop")
				var limited *github.RateLimitError
				if refused := errors.As(err, &limited); refused != (call == 2) || err != nil && !refused {
					w.t.Errorf("%s, call %d: got %v", owner, call, err)
				}
			}
		}
	})
}

// Without limits a header that counts down to nothing would stop go-github by itself.
func TestUnlimitedCallerIsNeverToldThatNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	client := w.client("")
	for range 200 { // of the 60 that nobody in particular has
		_, answer, err := client.Apps.ListRepos(t.Context(), nil)
		wantError(t, err, http.StatusForbidden, "Resource not accessible by integration")
		if answer.Rate.Remaining == 0 {
			t.Fatal("nothing left")
		}
	}
}

func TestTokensLastAsLongAsAskedFor(t *testing.T) {
	inBubble(t, githubsim.Config{TokenLife: 5 * time.Second}, func(w *world) {
		token := w.token(nil)
		get := func() error {
			_, _, err := w.client(token).Repositories.Get(w.t.Context(), "acme", "shop")
			return err
		}
		<-time.After(5*time.Second - 1)
		w.must(get())
		<-time.After(1)
		wantError(w.t, get(), http.StatusUnauthorized, "Bad credentials")
	})
	t.Run("in real time", func(t *testing.T) {
		w := newWorld(t, func(c *githubsim.Config) { c.TokenLife, c.Now = 300*time.Millisecond, time.Now })
		w.clock = &clock{}
		shop := w.shop()
		if _, _, err := shop.Repositories.Get(t.Context(), "acme", "shop"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the token ends", func() bool {
			_, _, err := shop.Repositories.Get(t.Context(), "acme", "shop")
			return statusOf(err) == http.StatusUnauthorized
		})
	})
}
