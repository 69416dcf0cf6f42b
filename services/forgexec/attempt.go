package forgexec

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// lastWords is how long a process that was told to stop may take for stopping its
// commands and being heard.
const lastWords = 30 * time.Second

// attend runs the attempt that is at the other end of the link. The end of ctx
// and SIGTERM stop the commands; the link lives on to report that.
func attend(ctx context.Context, run *runner, link *link) (int, error) {
	told, forget := untilTold(ctx)
	defer forget()
	late, abandon := context.WithCancelCause(told)
	defer abandon(nil)
	commands, cancel := context.WithCancelCause(late)
	defer cancel(nil)
	stop := func(cause error) {
		if h, ok := errors.AsType[*halt](cause); ok && !h.atOnce {
			h.late = late
			cancel(h)
			return
		}
		abandon(cause)
	}
	connection, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	defer context.AfterFunc(told, func() { time.AfterFunc(lastWords, disconnect) })()

	over := make(chan error, 1)
	go func() { over <- link.run(connection, stop) }()
	link.window.add(endReport(attempt(commands, run, link)))
	if told.Err() != nil && !run.planned { // Forge was never reached, and hears of it from the engine
		time.AfterFunc(time.Second, disconnect)
	}
	err := <-over
	switch _, ok := errors.AsType[*refused](err); {
	case ok:
		return exitRefused, err
	case err != nil:
		return exitFailed, err
	}
	if link.keptFor > 0 && run.remains != nil {
		newKeeper(run, link).run(told)
	}
	return exitReported, nil
}

// attempt is the whole of it: the plan, the source, the steps.
func attempt(ctx context.Context, run *runner, link *link) *schedulerv1.Ended {
	var plan *schedulerv1.Plan
	select {
	case <-ctx.Done():
		return halted(ctx).ended()
	case plan = <-link.plan:
		run.planned = true
	}
	select {
	case <-ctx.Done():
		return halted(ctx).ended()
	case report := <-link.source:
		if ended := report.GetEnded(); ended != nil {
			return ended
		}
		run.report(report)
	}
	if ended := run.awaitServices(ctx); ended != nil {
		return ended
	}
	return run.steps(ctx, plan)
}

// untilTold ends when this process is asked to end.
func untilTold(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
}
