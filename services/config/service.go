package config

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/due"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// Deps is what config needs. GitHub.App alone is required.
type Deps struct {
	GitHub GitHub
	Blobs  *blobs.Store // keeps sources; nil: each is made whenever it is asked for
	// Mirrors are what checkouts are made from; nil: there are none.
	Mirrors *mirror.Mirrors
	Log     *slog.Logger
	Tracer  trace.TracerProvider
	Now     func() time.Time
}

// GitHub says which GitHub there is, and as which App config calls it.
type GitHub struct {
	App      kitgithub.App
	APIURL   string // root of the REST API; "" for github.com's
	PagesURL string // root of the pages that people see; "" for https://github.com
}

// Service is the room.
type Service struct {
	configv1.UnimplementedInstallationServiceServer
	configv1.UnimplementedTokenServiceServer
	configv1.UnimplementedBuildConfigServiceServer
	configv1.UnimplementedSourceServiceServer
	configv1.UnimplementedHookDeliveryServiceServer
	configv1.UnimplementedPullRequestServiceServer
	configv1.UnimplementedRefServiceServer
	configv1.UnimplementedCommitServiceServer
	configv1.UnimplementedRepositoryServiceServer
	configv1.UnimplementedEventServiceServer

	log           *slog.Logger
	now           func() time.Time
	installations *installations
	tokens        *tokens
	clients       *clients
	sources       *sourceCache // nil where Deps.Blobs is
	checkouts     checkouts

	configs *lru.Cache[commitKey, *configv1.GetBuildConfigResponse]
	reading singleflight[configRead, *configv1.GetBuildConfigResponse]
	people  *buildConfigs // the same, for people
}

// cachedConfigs is how many responses are cached; each is maxCachedConfig bytes at
// most.
const cachedConfigs = 1000

// New checks the App's key, without asking GitHub.
func New(deps Deps) (*Service, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	pages := cmp.Or(deps.GitHub.PagesURL, "https://github.com")
	base := kitgithub.Config{APIURL: deps.GitHub.APIURL, Tracer: deps.Tracer, Log: deps.Log, Base: kitgithub.NewTransport()}
	app, err := kitgithub.NewApp(base, deps.GitHub.App)
	if err != nil {
		return nil, err
	}
	configs, err := lru.New[commitKey, *configv1.GetBuildConfigResponse](cachedConfigs)
	if err != nil {
		return nil, fmt.Errorf("cache of build configs: %w", err)
	}
	shown, err := lru.New[shownKey, shown](cachedShown)
	if err != nil {
		return nil, fmt.Errorf("cache of what is shown: %w", err)
	}
	s := &Service{log: deps.Log, now: deps.Now, configs: configs}
	s.people = &buildConfigs{Service: s, shown: shown}
	s.installations = &installations{app: app.Apps, pages: pages, now: deps.Now, known: map[int64]*configv1.Installation{}}
	s.tokens = &tokens{app: app.Apps, installations: s.installations, now: deps.Now, cached: map[tokenKey]token{}}
	s.checkouts = checkouts{mirrors: deps.Mirrors, tokens: s.tokens, pages: strings.TrimSuffix(pages, "/"), repository: s.repository}
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
	configv1.RegisterBuildConfigServiceServer(r, s.people)
	configv1.RegisterSourceServiceServer(r, s)
	configv1.RegisterHookDeliveryServiceServer(r, s)
	configv1.RegisterPullRequestServiceServer(r, s)
	configv1.RegisterRefServiceServer(r, s)
	configv1.RegisterCommitServiceServer(r, s)
	configv1.RegisterCollaboratorServiceServer(r, collaborators{Service: s})
	configv1.RegisterRepositoryServiceServer(r, s)
	configv1.RegisterEventServiceServer(r, s)
}

// Access says who may call what. A token of the App is for the reporter alone: the
// admin token must not grant what the App may do.
func Access() map[string]rpc.Access {
	return map[string]rpc.Access{
		configv1.InstallationService_ListInstallations_FullMethodName:      {},
		configv1.InstallationService_GetInstallation_FullMethodName:        {},
		configv1.InstallationService_RefreshInstallations_FullMethodName:   {},
		configv1.EventService_ReceiveEvent_FullMethodName:                  {Rooms: []string{"gateway"}},
		configv1.BuildConfigService_GetBuildConfig_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.BuildConfigService_ValidateBuildConfig_FullMethodName:     {},
		configv1.BuildConfigService_ShowBuildConfig_FullMethodName:         {},
		configv1.BuildConfigService_GetSchema_FullMethodName:               {Public: true},
		configv1.HookDeliveryService_ListHookDeliveries_FullMethodName:     {Rooms: []string{"gateway"}},
		configv1.HookDeliveryService_RedeliverHookDelivery_FullMethodName:  {Rooms: []string{"gateway"}},
		configv1.PullRequestService_ListChangedPullRequests_FullMethodName: {Rooms: []string{"gateway"}},
		configv1.PullRequestService_ListClosedPullRequests_FullMethodName:  {Rooms: []string{"gateway"}},
		configv1.RefService_ListPushedRefs_FullMethodName:                  {Rooms: []string{"gateway"}},
		configv1.SourceService_GetSource_FullMethodName:                    {Rooms: []string{"scheduler"}},
		configv1.SourceService_PrepareSource_FullMethodName:                {Rooms: []string{"scheduler"}},
		configv1.SourceService_Merge_FullMethodName:                        {Rooms: []string{"scheduler"}},
		configv1.PullRequestService_GetPullRequest_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.TokenService_CreateToken_FullMethodName:                   {Rooms: []string{"reporter"}, NoAdmin: true},
		configv1.CommitService_GetCommit_FullMethodName:                    {Rooms: []string{"scheduler", "gateway"}},
		configv1.CommitService_CompareCommits_FullMethodName:               {Rooms: []string{"scheduler"}},
		configv1.CommitService_FindCommit_FullMethodName:                   {Rooms: []string{"scheduler"}},
		configv1.CollaboratorService_GetPermission_FullMethodName:          {Rooms: []string{"scheduler"}},
		configv1.CollaboratorService_GetTeamMembership_FullMethodName:      {Rooms: []string{"scheduler"}},
		configv1.RepositoryService_GetRepository_FullMethodName:            {Rooms: []string{"scheduler", "gateway"}},
	}
}

const (
	refreshEvery = time.Hour
	retryFirst   = 500 * time.Millisecond
	retryMost    = time.Minute
)

// Run keeps the installations as GitHub has them until ctx ends. While GitHub
// cannot be reached the room serves what it last read.
func (s *Service) Run(ctx context.Context) error {
	for failed := 0; ; {
		pause := refreshEvery
		if n, err := s.installations.refresh(ctx); err == nil {
			failed = 0
			s.log.InfoContext(ctx, "installations read from GitHub", "count", n)
		} else if ctx.Err() == nil {
			failed++
			pause = due.Backoff(failed, retryFirst, retryMost, rand.Float64)
			s.log.WarnContext(ctx, "read of the installations failed; it is repeated", "retry_in", pause.Round(time.Millisecond), "error", err)
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
