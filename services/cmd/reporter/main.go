// Command reporter is the room that tells GitHub what became of builds.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

func main() {
	var s wire.ReporterSettings
	_, err := settings.Parse(&s, "reporter", "What GitHub is told, until it has been told.", "127.0.0.1:9093", "")
	if err == nil {
		err = wire.Apart(context.Background(), "reporter", s, wire.Reporter)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reporter:", err)
		os.Exit(1)
	}
}
