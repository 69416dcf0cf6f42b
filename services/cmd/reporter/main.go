// Command reporter is the room that tells GitHub what became of builds.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/settings"
)

// stopGrace is how long each part of the process gets to stop.
const stopGrace = 10 * time.Second

type flags struct {
	settings.Common
	settings.Rooms
	settings.GRPC
	settings.GitHub
	settings.Reporter
	ConfigURL string `env:"FORGE_CONFIG_URL" default:"127.0.0.1:9091" help:"gRPC address of config."`
}

func main() {
	var f flags
	_, err := settings.Parse(&f, "reporter", "What GitHub is told, until it has been told.", "127.0.0.1:9093", "")
	if err == nil {
		err = run(context.Background(), f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reporter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: "reporter", Version: settings.Version, Debug: f.Debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()

	admin, err := f.Admin()
	if err != nil {
		return err
	}
	serving, err := f.Server("reporter", f.GRPCAddress, admin, reporter.Access(), tel)
	if err != nil {
		return err
	}
	peer, err := f.Peer("reporter", tel)
	if err != nil {
		return err
	}
	config, err := rpc.Dial(f.ConfigURL, peer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, config.Close()) }()
	db, err := sqldb.Open(ctx, f.Database("reporter", reporter.Migrations(), tel.Log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	service, err := reporter.New(reporter.Deps{
		DB: db, Config: config, GitHubAPIURL: f.GitHubAPIURL, Report: f.Report, Retention: f.ReportRetention,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return err
	}
	server := rpc.NewServer(serving)
	service.Register(server)
	lis, err := f.Listen()
	if err != nil {
		return err
	}

	tel.Log.InfoContext(ctx, "up", "version", settings.Version, "grpc", lis.Addr().String())
	return daemon.Run(ctx, tel.Log, stopGrace,
		daemon.Background("reporter", service.Run),
		daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, lis) }),
	)
}
