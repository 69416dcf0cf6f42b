package config

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/go-github/v62/github"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// Deps is what config needs. App alone is required.
type Deps struct {
	App          kitgithub.App
	GitHubAPIURL string       // "" for github.com's
	GitHubURL    string       // of the pages that people see; "" for https://github.com
	Blobs        *blobs.Store // keeps sources; nil: each is downloaded whenever it is asked for
	Log          *slog.Logger
	Tracer       trace.TracerProvider
	Now          func() time.Time
}

// Service is the room.
type Service struct {
	configv1.UnimplementedInstallationServiceServer
	configv1.UnimplementedTokenServiceServer
	configv1.UnimplementedBuildConfigServiceServer
	configv1.UnimplementedSourceServiceServer
	configv1.UnimplementedHookDeliveryServiceServer
	configv1.UnimplementedPullRequestServiceServer
	configv1.UnimplementedCommitServiceServer
	configv1.UnimplementedCollaboratorServiceServer
	configv1.UnimplementedRepositoryServiceServer
	configv1.UnimplementedEventServiceServer

	log           *slog.Logger
	installations *installations
	tokens        *tokens
	clients       *clients
	sources       *sourceCache // nil: every source is downloaded when asked for

	configs       *lru.Cache[commit, *configv1.GetBuildConfigResponse]
	configFlights flights[commit, *configv1.GetBuildConfigResponse]
}

// cachedConfigs bounds the answers kept; each is maxCachedConfig bytes at most.
const cachedConfigs = 1000

// New checks the App's key, without asking GitHub.
func New(deps Deps) (*Service, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	deps.GitHubURL = cmp.Or(deps.GitHubURL, "https://github.com")
	base := kitgithub.Config{APIURL: deps.GitHubAPIURL, Tracer: deps.Tracer, Log: deps.Log, Base: kitgithub.NewTransport()}
	app, err := kitgithub.NewApp(base, deps.App)
	if err != nil {
		return nil, err
	}
	configs, err := lru.New[commit, *configv1.GetBuildConfigResponse](cachedConfigs)
	if err != nil {
		return nil, fmt.Errorf("cache of build configs: %w", err)
	}
	s := &Service{log: deps.Log, configs: configs}
	s.installations = &installations{app: app.Apps, pages: deps.GitHubURL, now: deps.Now, known: map[int64]*configv1.Installation{}}
	s.tokens = &tokens{app: app.Apps, installations: s.installations, now: deps.Now, cached: map[bucket]token{}}
	if s.clients, err = newClients(base, s.tokens); err != nil {
		return nil, err
	}
	if deps.Blobs != nil {
		if s.sources, err = newSourceCache(deps.Blobs, deps.Log, maxSourceCache, deps.Now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Register registers all of the room's services.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	configv1.RegisterInstallationServiceServer(r, s)
	configv1.RegisterTokenServiceServer(r, s)
	configv1.RegisterBuildConfigServiceServer(r, s)
	configv1.RegisterSourceServiceServer(r, s)
	configv1.RegisterHookDeliveryServiceServer(r, s)
	configv1.RegisterPullRequestServiceServer(r, s)
	configv1.RegisterCommitServiceServer(r, s)
	configv1.RegisterCollaboratorServiceServer(r, s)
	configv1.RegisterRepositoryServiceServer(r, s)
	configv1.RegisterEventServiceServer(r, s)
}

// Access says who may call what. Tokens are for the rooms alone: the admin's
// token must not open what the App may do.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		configv1.InstallationService_ListInstallations_FullMethodName:      {},
		configv1.InstallationService_GetInstallation_FullMethodName:        {},
		configv1.InstallationService_RefreshInstallations_FullMethodName:   {},
		configv1.EventService_ReceiveEvent_FullMethodName:                  {Rooms: []string{"gateway"}},
		configv1.BuildConfigService_GetBuildConfig_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.BuildConfigService_ValidateBuildConfig_FullMethodName:     {},
		configv1.BuildConfigService_GetSchema_FullMethodName:               {Public: true},
		configv1.HookDeliveryService_ListHookDeliveries_FullMethodName:     {Rooms: []string{"gateway"}},
		configv1.HookDeliveryService_RedeliverHookDelivery_FullMethodName:  {Rooms: []string{"gateway"}},
		configv1.PullRequestService_ListChangedPullRequests_FullMethodName: {Rooms: []string{"gateway"}},
		configv1.SourceService_GetSource_FullMethodName:                    {Rooms: []string{"scheduler"}},
		configv1.PullRequestService_GetPullRequest_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.TokenService_CreateToken_FullMethodName:                   {Rooms: []string{"reporter"}, NoAdmin: true},
		configv1.CommitService_CompareCommits_FullMethodName:               {Rooms: []string{"scheduler"}},
		configv1.CommitService_FindCommit_FullMethodName:                   {Rooms: []string{"scheduler"}},
		configv1.CollaboratorService_GetPermission_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.RepositoryService_GetRepository_FullMethodName:            {Rooms: []string{"scheduler"}},
	}
}

const (
	refreshEvery = time.Hour
	retryFirst   = 500 * time.Millisecond
	retryMost    = time.Minute
)

// Run keeps the installations as GitHub knows them until ctx ends. While GitHub
// cannot be asked the room serves what it knows.
func (s *Service) Run(ctx context.Context) error {
	for failed := 0; ; {
		pause := refreshEvery
		if n, err := s.installations.refresh(ctx); err == nil {
			failed = 0
			s.log.InfoContext(ctx, "installations read from GitHub", "count", n)
		} else if ctx.Err() == nil {
			failed++
			pause = due.Backoff(failed, retryFirst, retryMost, rand.Float64)
			s.log.WarnContext(ctx, "installations not read, trying again", "error", err, "in", pause.Round(time.Millisecond))
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// clients are go-github's, one per repository and room, which know GitHub's
// rate limit as of their last call.
type clients struct {
	base   kitgithub.Config
	tokens *tokens
	cached *lru.Cache[bucket, *github.Client]
}

const cachedClients = 1000

func newClients(base kitgithub.Config, tokens *tokens) (*clients, error) {
	cached, err := lru.New[bucket, *github.Client](cachedClients)
	if err != nil {
		return nil, fmt.Errorf("cache of GitHub clients: %w", err)
	}
	return &clients{base: base, tokens: tokens, cached: cached}, nil
}

// client is for config's own calls about a repository. It has a token already:
// an error says why there is none.
func (c *clients) client(ctx context.Context, g grant) (*github.Client, error) {
	b, _, err := c.tokens.token(ctx, g)
	if err != nil {
		return nil, err
	}
	if client, ok := c.cached.Get(b); ok {
		return client, nil
	}
	cfg := c.base
	cfg.Tokens = source{c.tokens, g}
	client, err := kitgithub.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("GitHub client of %s: %w", g.fullName(), err)
	}
	c.cached.Add(b, client)
	return client, nil
}

// failure says in words and as a kind why a call to GitHub did not succeed. That
// GitHub does not accept our credentials is for the operator to mend, not for
// the caller, who may try again.
func failure(err error) error {
	outcome := kitgithub.Classify(err)
	kind := outcome.Kind
	if kind == fault.Unauthenticated || outcome.Retry {
		kind = fault.Unavailable
	}
	return fault.Newf(kind, "%s", outcome.Text)
}
