package main

import (
	"context"

	"github.com/forge-ci/forge/services/wire"
)

type up struct {
	wire.Settings
}

// Run serves until SIGINT or SIGTERM.
func (u up) Run() error { return wire.Together(context.Background(), u.Settings) }
