package scheduler

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/attempt"
)

// runner plays forgexec on one stream.
type runner struct {
	t      *testing.T
	stream schedulerv1.RunnerService_AttachClient
	leave  context.CancelFunc

	stored int64
	plan   *schedulerv1.Plan
	source string
}

// stream opens a stream and says hello; what is answered is the caller's.
func (r *rig) stream(token string, hello *schedulerv1.Hello) *runner {
	r.t.Helper()
	ctx, leave := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(leave)
	stream, err := r.runners.Attach(metadata.AppendToOutgoingContext(ctx, attempt.TokenHeader, token))
	if err != nil {
		r.t.Fatalf("attach: %v", err)
	}
	if err := stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		r.t.Fatalf("hello: %v", err)
	}
	return &runner{t: r.t, stream: stream, leave: leave}
}

// attach plays a new runner up to where its commands begin.
func (r *rig) attach(token string) *runner {
	r.t.Helper()
	u := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", Version: "test", MasksSecrets: true, HeedsJobs: true})
	u.stored = u.recv().GetWelcome().GetStoredSequence()
	u.plan = u.recv().GetPlan()
	for {
		chunk := u.recv().GetSource()
		if chunk == nil || chunk.GetError() != "" {
			r.t.Fatalf("source: %v", chunk)
		}
		u.source += string(chunk.GetData())
		if chunk.GetLast() {
			return u
		}
	}
}

// reattach plays the same runner after its stream broke.
func (r *rig) reattach(token string) *runner {
	r.t.Helper()
	u := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", Version: "test", HasPlan: true, HasSource: true})
	u.stored = u.recv().GetWelcome().GetStoredSequence()
	return u
}

func (u *runner) recv() *schedulerv1.AttachResponse {
	u.t.Helper()
	message, err := u.stream.Recv()
	if err != nil {
		u.t.Fatalf("the stream ended: %v", err)
	}
	return message
}

func (u *runner) send(reports ...*schedulerv1.Report) {
	u.t.Helper()
	for _, report := range reports {
		if err := u.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: report}}); err != nil {
			u.t.Fatalf("report %d: %v", report.GetSequence(), err)
		}
	}
}

// acked waits until a report is acknowledged.
func (u *runner) acked(sequence int64) {
	u.t.Helper()
	for last := int64(0); last < sequence; last = u.recv().GetAck().GetSequence() {
		continue
	}
}

// refused waits for the stream to end and returns why; nil where it ended well.
func (u *runner) refused() error {
	u.t.Helper()
	for {
		if _, err := u.stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func report(sequence int64) *schedulerv1.Report {
	return &schedulerv1.Report{Sequence: sequence, Time: timestamppb.New(noon.Add(time.Duration(sequence) * time.Second))}
}

func began(sequence int64, step int32) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_StepStarted{StepStarted: &schedulerv1.StepStarted{Number: step}}
	return r
}

func printed(sequence int64, step int32, text string) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_Output{Output: &schedulerv1.Output{Number: step, Data: []byte(text)}}
	return r
}

func exited(sequence int64, step, code int32) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_StepEnded{StepEnded: &schedulerv1.StepEnded{Number: step, ExitCode: code}}
	return r
}

func over(sequence int64, cause schedulerv1.Ended_Cause) *schedulerv1.Report {
	r := report(sequence)
	r.Event = &schedulerv1.Report_Ended{Ended: &schedulerv1.Ended{Cause: cause}}
	return r
}

// passing are the reports of a run whose steps all end with 0.
func passing(steps int32) []*schedulerv1.Report {
	var all []*schedulerv1.Report
	sequence := int64(0)
	next := func() int64 { sequence++; return sequence }
	for step := int32(1); step <= steps; step++ {
		all = append(all, began(next(), step), printed(next(), step, "ok\n"), exited(next(), step, 0))
	}
	return append(all, over(next(), schedulerv1.Ended_CAUSE_DONE))
}

// pass plays a whole run of the build's first attempt.
func (r *rig) pass(id string) {
	r.t.Helper()
	u := r.attach(r.spec(id, 1).Runner.Token)
	u.send(passing(int32(len(u.plan.GetSteps())))...)
	if err := u.refused(); err != nil {
		r.t.Fatalf("run of %s: %v", id, err)
	}
	r.becomes(id, schedulerv1.Build_STATE_PASSED)
}
