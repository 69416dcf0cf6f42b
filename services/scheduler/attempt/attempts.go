package attempt

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/scheduler/concurrency"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/image/gate"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/registry"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/shell"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Limits bound what builds may use.
type Limits struct {
	// Timeout counts where .forge.yml names none, MaxTimeout in any case.
	// Default: 1 and 6 hours.
	Timeout, MaxTimeout time.Duration
	// CPUs in cores and Memory in bytes count where .forge.yml names none, MaxCPUs
	// and MaxMemory in any case; 0 is no limit.
	CPUs, MaxCPUs     float64
	Memory, MaxMemory int64
	// Log is how many bytes the log of an attempt may have, but for the runner's
	// words; 0 is no limit.
	Log int64
	// Keep is how long the container of what failed is kept where .forge.yml does not say,
	// and MaxKeep how long in any case: with 0 none is.
	Keep, MaxKeep time.Duration
	// Disk is what a container may fill, in the words of who set it; "" is no limit.
	Disk string
	// PortAllowed reports whether builds may have a port of the host; nil is none.
	PortAllowed func(port int32) bool
}

// Runners says how forgexec reaches the scheduler, and what is expected of it.
type Runners struct {
	// URL is what forgexec dials, CA the PEM of whom it trusts there: see
	// engine.Runner.
	URL, CA string
	// Grace is the time from SIGTERM to SIGKILL, Heartbeat how often a runner is
	// heard. Default: 10 and 5 seconds.
	Grace, Heartbeat time.Duration
	// MachineGrace is how long a runner may be silent on a machine that the engine
	// does not reach. Default: 2 minutes.
	MachineGrace time.Duration
	// StartTimeout is how long the engine may take to start an attempt. Default: 15
	// minutes.
	StartTimeout time.Duration
}

// Deps is what attempts need.
type Deps struct {
	Store        *store.Store
	Logs         *logs.Service
	Secrets      *secrets.Service
	Registries   *registry.Service
	Inputs       *input.Service
	Contents     *content.Service
	Environments *environment.Service
	Groups       *concurrency.Service
	Shells       *shell.Service
	Engine       engine.Engine
	Images       Images
	// GitHub is where the pages of repositories are.
	GitHub string
	// Config brings the source.
	Config grpc.ClientConnInterface
	// Capacity is how many builds run at once, at least 1.
	Capacity int
	Limits   Limits
	Runners  Runners
	Trust    Trust
	Log      *slog.Logger
	Tracer   trace.Tracer
	// ToolTracer records spans that builds' tools have made; it returns nil where nobody
	// keeps any, and is nil where that is so for good.
	ToolTracer func() trace.TracerProvider
	Meter      metric.Meter
	Random     io.Reader
}

// Service owns builds from the queue to their end.
type Service struct {
	store        *store.Store
	logs         *logs.Service
	secrets      *secrets.Service
	registries   *registry.Service
	inputs       *input.Service
	contents     *content.Service
	environments *environment.Service
	groups       *concurrency.Service
	shells       *shell.Service
	engine       engine.Engine
	images       *images
	github       string
	sources      configv1.SourceServiceClient
	Capacity     int
	Limits       Limits
	Runners      Runners
	trust        Trust
	log          *slog.Logger
	tracer       trace.Tracer
	tools        toolTracer
	metrics      *metrics
	now          func() time.Time
	random       io.Reader
	// serving is since when runners reach this process.
	serving    time.Time
	heartbeats heartbeats
	preparing  preparations
	// Estimates are what people were told of when builds are placed.
	Estimates *Estimates

	Starts *due.Loop[Start]
	Stops  *due.Loop[store.Stop]
}

// New returns what owns builds; Run makes it work.
func New(d Deps) (*Service, error) {
	s := &Service{
		store: d.Store, logs: d.Logs, secrets: d.Secrets, registries: d.Registries, inputs: d.Inputs, contents: d.Contents, environments: d.Environments, groups: d.Groups, shells: d.Shells, engine: d.Engine, github: d.GitHub, images: &images{Images: d.Images, gate: gate.New(d.Store, d.Log), building: map[store.AttemptKey]bool{}},
		sources: configv1.NewSourceServiceClient(d.Config), Capacity: d.Capacity, Limits: d.Limits, Runners: d.Runners, trust: d.Trust,
		log: d.Log, tracer: d.Tracer, tools: d.ToolTracer, now: d.Store.Now, random: d.Random,
		serving: d.Store.Now(),
	}
	s.Limits.Timeout = cmp.Or(s.Limits.Timeout, time.Hour)
	s.Limits.MaxTimeout = cmp.Or(s.Limits.MaxTimeout, 6*time.Hour)
	s.Runners.Grace = cmp.Or(s.Runners.Grace, 10*time.Second)
	s.Runners.Heartbeat = cmp.Or(s.Runners.Heartbeat, 5*time.Second)
	s.Runners.StartTimeout = cmp.Or(s.Runners.StartTimeout, 15*time.Minute)
	s.Runners.MachineGrace = cmp.Or(s.Runners.MachineGrace, 2*time.Minute)
	s.Starts = &due.Loop[Start]{Name: "starts", Workers: s.Capacity, Drain: startDrain, Log: s.log, Claim: s.ClaimStarts, Renew: starting{s}.renewStart, Work: s.Start}
	s.Stops = &due.Loop[store.Stop]{Name: "stops", Workers: s.Capacity, Log: s.log, Claim: s.store.ClaimStops, Renew: s.store.RenewStop, Work: s.Stop}
	s.heartbeats.service = s
	s.preparing = preparations{sources: s.sources, log: s.log, tracer: s.tracer, soon: make(chan preparation, maxPreparing)}
	var err error
	if s.metrics, err = newMetrics(d.Meter); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if s.Estimates, err = newEstimates(s.metrics, s.now); err != nil {
		return nil, err
	}
	if err := observe(d.Meter, s); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	d.Store.OnEnd = func(ctx context.Context, b *store.Build) {
		s.metrics.ended(ctx, b)
		ran(ctx, s, b)
	}
	d.Environments.Open, d.Environments.Cancel = s.Open, s.Cancel
	d.Groups.Open, d.Groups.Cancel = s.Open, s.Cancel
	return s, nil
}

// RegisterRunner serves what runners call.
func (s *Service) RegisterRunner(reg grpc.ServiceRegistrar) {
	schedulerv1.RegisterRunnerServiceServer(reg, runnerService{service: s})
}

// Run starts, stops and looks after attempts until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.metrics.begin(ctx)
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.Starts.Run, s.Stops.Run, s.heartbeats.run, s.sweepOften, s.preparing.run} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// WakeStarts has the attempts that are due to be started looked at.
func (s *Service) WakeStarts() { s.Starts.Wake() }

// WakeStops has the containers that are due to be removed looked at.
func (s *Service) WakeStops() { s.Stops.Wake() }
