package signin

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/forge-ci/forge/services/gateway/audit"
	"github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/keyring"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// How long things are good for.
const (
	// DefaultIdle and DefaultLife end a session that nobody uses, and any.
	DefaultIdle = 7 * 24 * time.Hour
	DefaultLife = 30 * 24 * time.Hour
	// LongestToken is how long a token that a person makes is good at most.
	LongestToken = 366 * 24 * time.Hour
	// flowLife is how long a person may take to sign in.
	flowLife = 10 * time.Minute
	// noteEvery is how exactly it is known when a session was used last.
	noteEvery = time.Minute
)

// mostTokens is how many tokens a person has at most.
const mostTokens = 50

// keysSetting names what holds the keys of what is encrypted here.
const keysSetting = "FORGE_SESSIONS_KEY"

// Config is how people sign in. Without ClientID and ClientSecret nobody does, and the
// admin token is all that is known.
type Config struct {
	ClientID     string
	ClientSecret string
	Keys         [][]byte // that encrypt; the first encrypts, any decrypts
	Idle, Life   time.Duration
}

// Deps is what sign-in works with.
type Deps struct {
	Config
	DB           *sqldb.DB
	AdminToken   string
	ExternalURL  string // how people reach this Forge
	Base         string // its path as it stands before a path in a link; "": the root
	GitHubURL    string // of GitHub's pages, without a slash at the end
	GitHubAPIURL string
	Log          *slog.Logger
	Tracer       trace.TracerProvider
	Now          func() time.Time
	Audit        *audit.Outbox
}

// Service knows who asks.
type Service struct {
	*asker

	origin string // of this Forge's pages, such as https://forge.example.com
	secure bool   // cookies go over HTTPS alone
	starts starts
}

// asker asks GitHub: as a person, with what that person has let Forge have.
type asker struct {
	deps   Deps
	store  *store
	ring   *keyring.Ring // nil: nobody signs in
	oauth  oauth2.Config
	base   http.RoundTripper  // to GitHub
	client *http.Client       // to GitHub, for what is asked as nobody in particular
	once   singleflight.Group // refreshes
}

// New checks the settings.
func New(deps Deps) (*Service, error) {
	deps.Idle, deps.Life = cmp.Or(deps.Idle, DefaultIdle), cmp.Or(deps.Life, DefaultLife)
	if (deps.ClientID == "") != (deps.ClientSecret == "") {
		return nil, errors.New("sign-in needs both of FORGE_OAUTH_CLIENT_ID and FORGE_OAUTH_CLIENT_SECRET: they are the Client ID and a client secret " +
			"on the App's settings page on GitHub")
	}
	external, err := url.Parse(deps.ExternalURL)
	if err != nil {
		return nil, fmt.Errorf("FORGE_EXTERNAL_URL: %w", err)
	}
	asker := &asker{
		deps: deps, store: &store{deps.DB}, base: github.NewTransport(),
		oauth: oauth2.Config{
			ClientID: deps.ClientID, ClientSecret: deps.ClientSecret,
			RedirectURL: strings.TrimSuffix(deps.ExternalURL, "/") + "/sign-in/callback",
			Endpoint: oauth2.Endpoint{
				AuthURL: deps.GitHubURL + "/login/oauth/authorize", TokenURL: deps.GitHubURL + "/login/oauth/access_token",
				DeviceAuthURL: deps.GitHubURL + "/login/device/code", AuthStyle: oauth2.AuthStyleInParams,
			},
		},
	}
	asker.client = &http.Client{Transport: asker.base}
	s := &Service{
		asker: asker, origin: external.Scheme + "://" + external.Host, secure: external.Scheme == "https", starts: starts{now: deps.Now},
	}
	if !s.Enabled() {
		return s, nil
	}
	if s.ring, err = keyring.New(keysSetting, deps.Keys, rand.Reader); err != nil {
		return nil, err
	}
	return s, nil
}

// Enabled reports whether people can sign in.
func (s *Service) Enabled() bool { return s.deps.ClientID != "" }

// isAdmin compares in constant time; no token is none.
func (s *Service) isAdmin(token string) bool {
	return s.deps.AdminToken != "" && subtle.ConstantTimeCompare([]byte(token), []byte(s.deps.AdminToken)) == 1
}

// Close ends connections to GitHub that nobody uses.
func (s *Service) Close() { s.client.CloseIdleConnections() }

// pruneEvery is how often what has ended is removed.
const pruneEvery = time.Minute

// Run removes what has ended until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if !s.Enabled() {
		return nil
	}
	defer s.Close()
	if err := s.store.freeLeases(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := s.store.prune(ctx, s.deps.Now(), s.deps.Idle); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "pruning failed; sessions that have ended stay until the next minute", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
