// Package wire runs all four rooms in one process. The wiring is that of
// the four binaries, with one pipe in place of their addresses: the same calls,
// the same checks, the same trace.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/settings"
)

// Forge is the four rooms, assembled and listening. Its parts are to be run.
type Forge struct {
	Parts      []daemon.Part
	HTTP, GRPC net.Addr
	Admin      string // the admin token
}

// New opens what s names and assembles the rooms. What it opened is closed when
// the parts stop, or at once where it returns an error.
func New(ctx context.Context, s Settings, tel *telemetry.Telemetry) (_ *Forge, err error) {
	var opened closers
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.close())
		}
	}()

	app, err := s.Key()
	if err != nil {
		return nil, err
	}
	secrets, err := s.Secrets()
	if err != nil {
		return nil, err
	}
	admin, err := s.Admin()
	if err != nil {
		return nil, err
	}
	keys, err := s.Keys(s.Common)
	if err != nil {
		return nil, err
	}

	web, err := s.ListenHTTP()
	if err != nil {
		return nil, err
	}
	opened = append(opened, web.Close)
	public, err := s.Listen()
	if err != nil {
		return nil, err
	}
	opened = append(opened, public.Close)
	runners, err := s.ListenRunner(s.DataDir, s.Certificate)
	if err != nil {
		return nil, err
	}
	opened = append(opened, runners.Close)

	pipe := rpc.NewPipe()
	conns := map[string]*grpc.ClientConn{}
	for _, room := range []string{"gateway", "scheduler", "reporter"} {
		if conns[room], err = pipe.Dial(room, tel.Tracer); err != nil {
			return nil, err
		}
		opened = append(opened, conns[room].Close)
	}
	stores := map[string]*sqldb.DB{}
	for room, migrations := range map[string]fs.FS{
		"gateway": gateway.Migrations(), "scheduler": scheduler.Migrations(), "reporter": reporter.Migrations(),
	} {
		if stores[room], err = sqldb.Open(ctx, s.Database(room, migrations, tel.Log)); err != nil {
			return nil, err
		}
		opened = append(opened, stores[room].Close)
	}

	instance, err := scheduler.Instance(ctx, stores["scheduler"])
	if err != nil {
		return nil, err
	}
	// The instance keeps Forges that share a bucket apart; sources are the same for all.
	kept := map[string]*blobs.Store{}
	for room, folder := range map[string]string{"config": "config", "scheduler": "scheduler/" + instance} {
		if kept[room], err = blobs.Open(ctx, blobs.Config{URL: s.BlobURL, Dir: filepath.Join(s.DataDir, "blobs"), Room: folder}); err != nil {
			return nil, fmt.Errorf("FORGE_BLOB_URL: %w", err)
		}
		opened = append(opened, kept[room].Close)
	}
	containers, err := engine.New(ctx, engine.Config{
		Name: s.Engine, DataDir: s.DataDir, Instance: instance, Docker: engine.Docker(s.Docker), Log: tel.Log,
	})
	if err != nil {
		return nil, err
	}

	cfg, err := config.New(config.Deps{
		App: app, GitHubAPIURL: s.GitHubAPIURL, GitHubURL: s.GitHubURL, Blobs: kept["config"],
		Log: tel.Log, Tracer: tel.Tracer,
	})
	if err != nil {
		return nil, err
	}
	rep, err := reporter.New(reporter.Deps{
		DB: stores["reporter"], Config: conns["reporter"], GitHubAPIURL: s.GitHubAPIURL,
		Report: s.Report, Retention: s.ReportRetention,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return nil, err
	}
	sched, err := scheduler.New(scheduler.Deps{
		DB: stores["scheduler"], Blobs: kept["scheduler"], Config: conns["scheduler"], Reporter: conns["scheduler"], Engine: containers,
		Capacity: s.Builds(), IntegrationBranches: s.IntegrationBranches, ProductionBranches: s.ProductionBranches,
		ForkPolicy: s.ForkPolicy, ExternalURL: s.ExternalURL, RunnerURL: runners.URL, RunnerCA: runners.CA,
		Timeout: s.Timeout, MaxTimeout: s.MaxTimeout,
		CPUs: s.CPUs, MaxCPUs: s.MaxCPUs, Memory: int64(s.Memory), MaxMemory: int64(s.MaxMemory), PortAllowed: s.PortAllowed,
		LogLimit: int64(s.LogLimit), LogRetention: s.LogRetention, BuildRetention: s.BuildRetention,
		SecretsKeys: keys,
		Log:         tel.Log, Tracer: tel.Tracer,
	})
	if err != nil {
		return nil, err
	}
	gate, err := gateway.New(gateway.Deps{ //nolint:contextcheck // its handlers have their requests'
		DB: stores["gateway"], Self: conns["gateway"],
		Receivers: map[string]grpc.ClientConnInterface{
			"config": conns["gateway"], "scheduler": conns["gateway"], "reporter": conns["gateway"],
		},
		Secrets: secrets, AllowedIPs: s.AllowedIPs, TrustedProxies: s.TrustedProxies, GitHubAPIURL: s.GitHubAPIURL, GitHubURL: s.GitHubURL,
		TLS: gateway.TLS{
			Cert: s.HTTPSCert, Key: s.HTTPSKey,
			Domains: s.ACMEDomains, Authority: s.ACMEURL, Cache: filepath.Join(s.DataDir, "acme"),
		},
		PayloadRetention: s.PayloadRetention, DeliveryRetention: s.DeliveryRetention,
		Version: settings.Version, ExternalURL: s.ExternalURL,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return nil, err
	}

	access := map[string]rpc.Access{}
	for _, room := range []map[string]rpc.Access{gateway.Access(), config.Access(), scheduler.Access(), reporter.Access()} {
		maps.Copy(access, room)
	}
	server := rpc.NewServer(rpc.Config{Name: "forge", Access: access, AdminToken: admin, Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter})
	cfg.Register(server)
	sched.Register(server)
	rep.Register(server)
	gate.Register(server)
	// No tracer: a stream as long as its build says nothing; the scheduler tells of the steps.
	runner := rpc.NewServer(rpc.Config{Name: "runner", Access: scheduler.Access(), Bare: true, TLS: runners.TLS, Log: tel.Log, Meter: tel.Meter})
	sched.RegisterRunner(runner)

	return &Forge{
		HTTP: web.Addr(), GRPC: public.Addr(), Admin: admin,
		Parts: []daemon.Part{
			daemon.Background("stores", func(ctx context.Context) error {
				<-ctx.Done()
				return opened.close()
			}),
			daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, public, pipe) }),
			daemon.Background("config", cfg.Run),
			daemon.Background("reporter", rep.Run),
			daemon.Background("runner", func(ctx context.Context) error { return runner.Serve(ctx, runners) }),
			daemon.Background("scheduler", sched.Run),
			daemon.Background("relay", gate.Run),
			daemon.Background("HTTP", func(ctx context.Context) error { return gate.Serve(ctx, web) }),
			daemon.Background("health", server.TurnAway),
		},
	}, nil
}

// closers are closed last first. What its user has closed already is fine.
type closers []func() error

func (c closers) close() error {
	var errs []error
	for _, closeOne := range slices.Backward(c) {
		if err := closeOne(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
