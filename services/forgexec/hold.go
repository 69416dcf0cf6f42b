package forgexec

import (
	"context"
	"log/slog"
	"time"
)

// exitHeld is added to the exit codes of a process that was held.
const exitHeld = 64

// hold waits, once all is over, until this process is told to end, unless it was
// before, or for as long as the engine says. A swarm needs that: it frees what a job has reserved, and removes
// its container, only if it can mark it before the job ends by itself. For the same
// reason no such process ends with 0: a completed job reserves for good.
func hold(told context.Context, within string, code int, log *slog.Logger) int {
	if within == "" {
		return code
	}
	most, err := time.ParseDuration(within)
	if err != nil {
		log.ErrorContext(told, "forgexec does not wait to be told to end", "variable", holdEnv, "error", err)
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-told.Done():
	case <-timer.C:
	}
	return exitHeld + code
}
