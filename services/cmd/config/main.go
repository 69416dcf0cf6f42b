// Command config is the room that knows the GitHub App and .forge.yml.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// stopGrace is how long each part of the process gets to stop.
const stopGrace = 10 * time.Second

type flags struct {
	settings.Common
	settings.Rooms
	settings.GRPC
	settings.GitHub
	settings.App
}

func main() {
	var f flags
	_, err := settings.Parse(&f, "config", "What a repository wants built, and the only holder of the App's key.", "127.0.0.1:9091", "")
	if err == nil {
		err = run(context.Background(), f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "config:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: "config", Version: settings.Version, Debug: f.Debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()

	app, err := f.Key()
	if err != nil {
		return err
	}
	admin, err := f.Admin()
	if err != nil {
		return err
	}
	serving, err := f.Server("config", f.GRPCAddress, admin, config.Access(), tel)
	if err != nil {
		return err
	}
	kept, err := blobs.Open(ctx, blobs.Config{URL: f.BlobURL, Dir: filepath.Join(f.DataDir, "blobs"), Room: "config"})
	if err != nil {
		return fmt.Errorf("FORGE_BLOB_URL: %w", err)
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	service, err := config.New(config.Deps{
		App: app, GitHubAPIURL: f.GitHubAPIURL, GitHubURL: f.GitHubURL, Blobs: kept,
		Log: tel.Log, Tracer: tel.Tracer,
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
		daemon.Background("config", service.Run),
		daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, lis) }),
	)
}
