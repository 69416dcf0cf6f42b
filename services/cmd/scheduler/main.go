// Command scheduler is the room that decides which build runs next, and where.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/settings"
)

// stopGrace is how long each part of the process gets to stop.
const stopGrace = 10 * time.Second

type flags struct {
	settings.Common
	settings.Rooms
	settings.GRPC
	settings.Links
	settings.Scheduler
	ConfigURL   string `env:"FORGE_CONFIG_URL" default:"127.0.0.1:9091" help:"gRPC address of config."`
	ReporterURL string `env:"FORGE_REPORTER_URL" default:"127.0.0.1:9093" help:"gRPC address of reporter."`
}

func main() {
	var f flags
	_, err := settings.Parse(&f, "scheduler", "Which build runs next, and where.", "127.0.0.1:9092", engine.Names())
	if err == nil {
		err = run(context.Background(), f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scheduler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: "scheduler", Version: settings.Version, Debug: f.Debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()

	admin, err := f.Admin()
	if err != nil {
		return err
	}
	keys, err := f.Keys(f.Common)
	if err != nil {
		return err
	}
	serving, err := f.Server("scheduler", f.GRPCAddress, admin, scheduler.Access(), tel)
	if err != nil {
		return err
	}
	peer, err := f.Peer("scheduler", tel)
	if err != nil {
		return err
	}
	config, err := rpc.Dial(f.ConfigURL, peer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, config.Close()) }()
	reporter, err := rpc.Dial(f.ReporterURL, peer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reporter.Close()) }()
	db, err := sqldb.Open(ctx, f.Database("scheduler", scheduler.Migrations(), tel.Log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	instance, err := scheduler.Instance(ctx, db)
	if err != nil {
		return err
	}
	kept, err := blobs.Open(ctx, blobs.Config{URL: f.BlobURL, Dir: filepath.Join(f.DataDir, "blobs"), Room: "scheduler/" + instance})
	if err != nil {
		return fmt.Errorf("FORGE_BLOB_URL: %w", err)
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	containers, err := engine.New(ctx, engine.Config{
		Name: f.Engine, DataDir: f.DataDir, Instance: instance, Docker: engine.Docker(f.Docker), Log: tel.Log,
	})
	if err != nil {
		return err
	}
	runners, err := f.ListenRunner(f.DataDir, f.Certificate)
	if err != nil {
		return err
	}
	service, err := scheduler.New(scheduler.Deps{
		DB: db, Blobs: kept, Config: config, Reporter: reporter, Engine: containers,
		Capacity: f.Builds(), IntegrationBranches: f.IntegrationBranches, ProductionBranches: f.ProductionBranches,
		ForkPolicy: f.ForkPolicy, ExternalURL: f.ExternalURL, RunnerURL: runners.URL, RunnerCA: runners.CA,
		Timeout: f.Timeout, MaxTimeout: f.MaxTimeout,
		CPUs: f.CPUs, MaxCPUs: f.MaxCPUs, Memory: int64(f.Memory), MaxMemory: int64(f.MaxMemory), PortAllowed: f.PortAllowed,
		LogLimit: int64(f.LogLimit), LogRetention: f.LogRetention, BuildRetention: f.BuildRetention,
		SecretsKeys: keys,
		Log:         tel.Log, Tracer: tel.Tracer,
	})
	if err != nil {
		return err
	}
	server := rpc.NewServer(serving)
	service.Register(server)
	// No tracer: a stream as long as its build says nothing; the scheduler tells of the steps.
	runner := rpc.NewServer(rpc.Config{Name: "runner", Access: scheduler.Access(), Bare: true, TLS: runners.TLS, Log: tel.Log, Meter: tel.Meter})
	service.RegisterRunner(runner)
	lis, err := f.Listen()
	if err != nil {
		return err
	}

	tel.Log.InfoContext(ctx, "up", "version", settings.Version, "grpc", lis.Addr().String(), "engine", f.Engine)
	return daemon.Run(ctx, tel.Log, stopGrace,
		daemon.Background("runner", func(ctx context.Context) error { return runner.Serve(ctx, runners) }),
		daemon.Background("scheduler", service.Run),
		daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, lis) }),
	)
}
