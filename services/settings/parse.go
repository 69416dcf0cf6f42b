package settings

import (
	"os"
	"slices"

	"github.com/alecthomas/kong"

	"github.com/forge-ci/forge/services/kit/settings"
)

// All is every setting of every binary: one environment may serve them all.
type All struct {
	Common
	Rooms
	Siblings
	GRPC
	Links
	GitHub
	Gateway
	App
	Scheduler
	Reporter
}

// Parse fills dst, a kong struct of groups, from the command line, the
// environment and the settings file. grpcAddress is the default of
// FORGE_GRPC_ADDRESS.
func Parse(dst any, name, description, grpcAddress, engines string) (*kong.Context, error) {
	known := slices.Clone(ForBuilds)
	vars := kong.Vars{"grpc_address": grpcAddress, "engines": engines}
	for _, s := range settings.Names(&All{}, vars) {
		known = append(known, s.Env)
		if s.Secret { // which may be in a file
			known = append(known, s.Env+"_FILE")
		}
	}
	return settings.Parse(dst, settings.Source{
		Name: name, Description: description,
		Args: os.Args[1:], Env: os.Environ(),
		Prefix: "FORGE_", Known: known, Renamed: Renamed, Vars: vars,
		Stdout: os.Stdout, Stderr: os.Stderr,
	})
}
