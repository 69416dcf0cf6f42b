// Command gateway is the room that GitHub and people call.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

func main() {
	var s wire.GatewaySettings
	_, err := settings.Parse(&s, "gateway", "GitHub in, typed events out; pages and JSON for people.", "127.0.0.1:9090", "")
	if err == nil {
		err = wire.Apart(context.Background(), "gateway", s, wire.Gateway)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}
