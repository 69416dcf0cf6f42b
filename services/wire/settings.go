package wire

import "github.com/forge-ci/forge/services/settings"

// Settings of all four rooms in one process.
type Settings struct {
	settings.Common
	settings.GRPC
	settings.Certificate
	settings.Links
	settings.GitHub
	settings.Gateway
	settings.App
	settings.Scheduler
	settings.Reporter
}
