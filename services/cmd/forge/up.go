package main

import (
	"context"
	"errors"
	"time"

	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

// stopGrace is how long each part of the process gets to stop.
const stopGrace = 10 * time.Second

type up struct {
	wire.Settings
}

// Run serves until SIGINT or SIGTERM.
func (u up) Run() (err error) {
	ctx := context.Background()
	tel, flush, err := telemetry.Start(ctx, telemetry.Config{Service: "forge", Version: settings.Version, Debug: u.Debug})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush(ctx)) }()
	forge, err := wire.New(ctx, u.Settings, tel)
	if err != nil {
		return err
	}
	tel.Log.InfoContext(ctx, "up", "version", settings.Version, "http", forge.HTTP.String(), "grpc", forge.GRPC.String(), "engine", u.Engine)
	return daemon.Run(ctx, tel.Log, stopGrace, forge.Parts...)
}
