package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type watchBuild struct {
	query
	ID string `arg:"" name:"build" help:"The build's id, as in the address of its page; of a job BUILD/JOB, such as 7k2…/lint."`
}

// Run tells of a build until it has ended, and ends as it did. Whoever knows a build may
// see it, so no token is asked for.
func (w watchBuild) Run() error {
	return untilInterrupted(func(ctx context.Context) error {
		return w.session(ctx, false, func(ctx context.Context, conn grpc.ClientConnInterface) error {
			client := schedulerv1.NewBuildServiceClient(conn)
			id, err := resolve(ctx, client, w.ID)
			if err != nil {
				return err
			}
			var last *schedulerv1.Build
			told := changes{}
			err = resumed(ctx, true, func(heard func()) error {
				stream, err := client.WatchBuild(ctx, &schedulerv1.WatchBuildRequest{BuildId: id})
				for err == nil {
					var update *schedulerv1.WatchBuildResponse
					if update, err = stream.Recv(); err != nil {
						break
					}
					heard()
					last = update.GetBuild()
					if err := w.show(update, told); err != nil {
						return err
					}
				}
				return err
			})
			if err != nil {
				return err
			}
			return verdict(last)
		})
	})
}

func (w watchBuild) show(update *schedulerv1.WatchBuildResponse, told changes) error {
	if w.json() {
		return w.printLine(update)
	}
	return printText(os.Stdout, func(out io.Writer) { told.print(out, update.GetBuild()) })
}

// changes are the states that were told of, by what they are of.
type changes map[string]string

// print prints a line for what is new of a build.
func (c changes) print(out io.Writer, b *schedulerv1.Build) {
	tell := func(of, colour, state string) {
		if c[of] == state {
			return
		}
		c[of] = state
		fmt.Fprintf(out, "%s: %s\n", of, paint(out, colour, state)) //nolint:errcheck // out is memory
	}
	for _, j := range b.GetJobs() {
		if j.GetState() >= schedulerv1.Build_STATE_RUNNING {
			tell("job "+j.GetTitle(), colourOf(j.GetState()), jobLine(j))
		}
	}
	for _, s := range b.GetSteps() {
		if s.GetState() <= schedulerv1.Step_STATE_PENDING || s.GetState() == schedulerv1.Step_STATE_SKIPPED {
			continue
		}
		tell(fmt.Sprintf("step %d of %d, %s", s.GetNumber(), max(int(b.GetStepCount()), len(b.GetSteps())), s.GetName()), colourOfStep(s), stepState(s))
	}
	tell(cmp.Or(b.GetContext(), what(b), "remote run"), colourOf(b.GetState()), stateLine(b))
}

// stepState is how a step stands.
func stepState(s *schedulerv1.Step) string {
	state := wording.Value(s.GetState())
	if s.GetExitCode() != 0 {
		state = fmt.Sprintf("%s (exit %d)", state, s.GetExitCode())
	}
	return state
}

func colourOfStep(s *schedulerv1.Step) string {
	switch s.GetState() {
	case schedulerv1.Step_STATE_PASSED:
		return green
	case schedulerv1.Step_STATE_FAILED:
		return red
	case schedulerv1.Step_STATE_RUNNING:
		return amber
	case schedulerv1.Step_STATE_UNSPECIFIED, schedulerv1.Step_STATE_PENDING, schedulerv1.Step_STATE_SKIPPED, schedulerv1.Step_STATE_STOPPED:
	}
	return dim
}
