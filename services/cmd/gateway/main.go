// Command gateway is the room that GitHub and people call.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// stopGrace is how long each part of the process gets to stop.
const stopGrace = 10 * time.Second

type flags struct {
	settings.Common
	settings.Rooms
	settings.GRPC
	settings.Links
	settings.GitHub
	settings.Gateway
	settings.Siblings
}

func main() {
	var f flags
	_, err := settings.Parse(&f, "gateway", "GitHub in, typed events out; pages and JSON for people.", "127.0.0.1:9090", "")
	if err == nil {
		err = run(context.Background(), f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: "gateway", Version: settings.Version, Debug: f.Debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()

	secrets, err := f.Secrets()
	if err != nil {
		return err
	}
	admin, err := f.Admin()
	if err != nil {
		return err
	}
	serving, err := f.Server("gateway", f.GRPCAddress, admin, gateway.Access(), tel)
	if err != nil {
		return err
	}
	peer, err := f.Peer("gateway", tel)
	if err != nil {
		return err
	}
	receivers := map[string]grpc.ClientConnInterface{}
	for room, url := range map[string]string{"config": f.ConfigURL, "scheduler": f.SchedulerURL, "reporter": f.ReporterURL} {
		conn, dialErr := rpc.Dial(url, peer)
		if dialErr != nil {
			return dialErr
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		receivers[room] = conn
	}
	pipe := rpc.NewPipe()
	self, err := pipe.Dial("", tel.Tracer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, self.Close()) }()
	db, err := sqldb.Open(ctx, f.Database("gateway", gateway.Migrations(), tel.Log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	service, err := gateway.New(gateway.Deps{ //nolint:contextcheck // its handlers have their requests'
		DB: db, Self: self, Receivers: receivers,
		Secrets: secrets, AllowedIPs: f.AllowedIPs, TrustedProxies: f.TrustedProxies, GitHubAPIURL: f.GitHubAPIURL, GitHubURL: f.GitHubURL,
		TLS: gateway.TLS{
			Cert: f.HTTPSCert, Key: f.HTTPSKey,
			Domains: f.ACMEDomains, Authority: f.ACMEURL, Cache: filepath.Join(f.DataDir, "acme"),
		},
		PayloadRetention: f.PayloadRetention, DeliveryRetention: f.DeliveryRetention,
		Version: settings.Version, ExternalURL: f.ExternalURL,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return err
	}
	server := rpc.NewServer(serving)
	service.Register(server)
	web, err := f.ListenHTTP()
	if err != nil {
		return err
	}
	lis, err := f.Listen()
	if err != nil {
		return err
	}

	tel.Log.InfoContext(ctx, "up", "version", settings.Version, "http", web.Addr().String(), "grpc", lis.Addr().String())
	return daemon.Run(ctx, tel.Log, stopGrace,
		daemon.Background("gRPC", func(ctx context.Context) error { return server.Serve(ctx, lis, pipe) }),
		daemon.Background("relay", service.Run),
		daemon.Background("HTTP", func(ctx context.Context) error { return service.Serve(ctx, web) }),
		daemon.Background("health", server.TurnAway),
	)
}
