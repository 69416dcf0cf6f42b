// Command scheduler is the room that decides which build runs next, and where.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/scheduler/engines"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
)

func main() {
	var s wire.SchedulerSettings
	_, err := settings.Parse(&s, "scheduler", "Which build runs next, and where.", "127.0.0.1:9092", engines.Names())
	if err == nil {
		err = wire.Apart(context.Background(), "scheduler", s, wire.Scheduler)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scheduler:", err)
		os.Exit(1)
	}
}
