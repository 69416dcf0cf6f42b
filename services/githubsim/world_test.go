package githubsim_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-github/v62/github"
	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const (
	appID    = 4711
	secret   = "It's a Secret to Everybody"
	patience = time.Minute
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is a GitHub with acme/shop, where the App is installed, and zeta/other, where it is not.
type world struct {
	t            *testing.T
	sim          *githubsim.Sim
	url          string
	key          *rsa.PrivateKey
	clock        *clock
	transport    http.RoundTripper // nil: the default one
	hooks        *receiver
	installation int64
}

func newWorld(t *testing.T, changes ...func(*githubsim.Config)) *world {
	t.Helper()
	key := kittest.AppKey(t)
	w := &world{t: t, key: key, clock: &clock{now: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)}, hooks: &receiver{status: http.StatusOK}}
	hooks := httptest.NewServer(w.hooks)
	config := githubsim.Config{AppID: appID, AppKey: &key.PublicKey, WebhookURL: hooks.URL, WebhookSecret: secret, Now: w.clock.Now}
	for _, change := range changes {
		change(&config)
	}
	w.sim = githubsim.New(config)
	server := httptest.NewServer(w.sim)
	w.url = server.URL
	w.sim.SetURL(server.URL)
	t.Cleanup(func() {
		server.Close()
		w.sim.Close()
		hooks.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "acme", Name: "shop", Files: map[string]string{
		".forge.yml": "image: alpine\nexecute: [./ci/test.sh]\n", "README.md": "# Shop\n", "ci/test.sh": "#!/bin/sh\nexit 0\n",
	}}))
	w.must(w.sim.AddRepository(githubsim.Repository{Owner: "zeta", Name: "other", Files: map[string]string{"a": "a"}}))
	w.installation = w.sim.AddInstallation("acme")
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// appToken signs what the App says of itself.
func (w *world) appToken(claims jwt.MapClaims) string {
	w.t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(w.key)
	w.must(err)
	return token
}

func (w *world) goodClaims() jwt.MapClaims {
	now := w.clock.Now()
	return jwt.MapClaims{"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "iss": "4711"}
}

func (w *world) client(token string) *github.Client {
	w.t.Helper()
	client, err := github.NewClient(&http.Client{Transport: w.transport}).WithEnterpriseURLs(w.url, w.url)
	w.must(err)
	if token == "" {
		return client
	}
	return client.WithAuthToken(token)
}

func (w *world) app() *github.Client { return w.client(w.appToken(w.goodClaims())) }

func (w *world) token(want *github.InstallationTokenOptions) string {
	w.t.Helper()
	token, _, err := w.app().Apps.CreateInstallationToken(w.t.Context(), w.installation, want)
	w.must(err)
	return token.GetToken()
}

// shop is a client of acme's installation.
func (w *world) shop() *github.Client { return w.client(w.token(nil)) }

// commit puts files on a branch of acme/shop, which it makes from main if need be.
func (w *world) commit(branch string, files map[string]string) string {
	w.t.Helper()
	if _, err := w.sim.Head("acme", "shop", branch); err != nil {
		w.must(w.sim.CreateBranch("acme", "shop", branch, "main"))
	}
	sha, err := w.sim.Commit("acme", "shop", branch, githubsim.Commit{Files: files})
	w.must(err)
	return sha
}

// pull opens a pull request of one new file into main.
func (w *world) pull(branch string) int {
	w.t.Helper()
	w.commit(branch, map[string]string{branch + ".txt": branch + "\n"})
	number, err := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "Add " + branch, Head: branch, Author: "mona"})
	w.must(err)
	return number
}

func (w *world) settle() []githubsim.Delivery {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	w.must(w.sim.WaitDeliveries(ctx))
	return w.sim.Deliveries()
}

// wantError holds an error of go-github against the status and a part of the text that GitHub would answer.
func wantError(t *testing.T, err error, status int, text string) {
	t.Helper()
	var problem *github.ErrorResponse
	if !errors.As(err, &problem) {
		t.Fatalf("got error %v, want GitHub's %d", err, status)
	}
	said := problem.Message
	var details strings.Builder
	for _, one := range problem.Errors {
		details.WriteString("\n" + one.Resource + " " + one.Field + " " + one.Code + " " + one.Message)
	}
	said += details.String()
	if problem.Response.StatusCode != status || !strings.Contains(said, text) {
		t.Errorf("got %d %q, want %d %q", problem.Response.StatusCode, said, status, text)
	}
	if !strings.HasPrefix(problem.DocumentationURL, "https://docs.github.com/rest") {
		t.Errorf("got documentation_url %q", problem.DocumentationURL)
	}
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A clock stands still until advanced; a zero one runs.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.IsZero() {
		return time.Now()
	}
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A receiver is the App's end of the webhook. It keeps what passes its check of the signature, as its type.
type receiver struct {
	mu      sync.Mutex
	status  int
	headers []http.Header
	events  []any
	errors  []error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	payload, err := github.ValidatePayload(req, []byte(secret))
	var event any
	if err == nil {
		event, err = github.ParseWebHook(github.WebHookType(req), payload)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errors = append(r.errors, err)
	} else {
		r.events, r.headers = append(r.events, event), append(r.headers, req.Header)
	}
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, "{}")
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) take(t *testing.T) []any {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.errors {
		t.Errorf("webhook refused: %v", err)
	}
	events := r.events
	r.events, r.headers = nil, nil
	return events
}
