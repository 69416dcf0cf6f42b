package forgexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// runLocally runs a plan from a file, prints what the steps print, and returns
// the exit code of the first step that failed, if one did.
func runLocally(ctx context.Context, run *runner, planFile, sourceFile string, stdout io.Writer) (int, error) {
	text, err := os.ReadFile(planFile)
	if err != nil {
		return exitFailed, fmt.Errorf("plan: %w", err)
	}
	plan := &schedulerv1.Plan{}
	if err := protojson.Unmarshal(text, plan); err != nil {
		return exitFailed, fmt.Errorf("plan %s: %w", planFile, err)
	}
	if sourceFile != "" {
		if err := unpackFile(run.workspace, sourceFile); err != nil {
			return exitFailed, fmt.Errorf("source %s: %w", sourceFile, err)
		}
	}
	ctx, forget := untilTold(ctx)
	defer forget()
	code := 0
	run.report = func(report *schedulerv1.Report) {
		_, _ = stdout.Write(report.GetOutput().GetData()) // a reader that went away does not stop the steps
		if end := report.GetStepEnded(); end != nil && code == 0 {
			code = int(end.GetExitCode())
		}
	}
	ended := run.steps(ctx, plan)
	if ended.GetCause() != schedulerv1.Ended_CAUSE_DONE {
		return max(code, exitFailed), errors.New(ended.GetMessage())
	}
	return code, nil
}

func unpackFile(w *workspace, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	_, _, err = unpackInto(w, file)
	return err
}
