package main

import (
	"context"

	"github.com/forge-ci/forge/services/settings"
)

// health is for whatever supervises Forge.
type health struct {
	settings.GRPC
	settings.Certificate
	settings.HealthFlags
}

func (h health) Run() error {
	return h.Certificate.Health(context.Background(), h.GRPCAddress, h.Ready)
}
