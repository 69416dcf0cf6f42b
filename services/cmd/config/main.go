// Command config is the room that knows the GitHub App and .forge.yml.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

func main() {
	var s wire.ConfigSettings
	_, err := settings.Parse(&s, "config", "What a repository wants built, and the only holder of the App's key.", "127.0.0.1:9091", "")
	if err == nil {
		err = wire.Apart(context.Background(), "config", s, wire.Config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "config:", err)
		os.Exit(1)
	}
}
