package attempt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/tests"
)

// StoredReports is what became of a batch of reports.
type StoredReports struct {
	Sequence int64 // all up to this one are stored
	Ended    bool
	KeptFor  time.Duration // the container, once the attempt has ended; 0: it is not
	Gap      bool          // a report is missing; those after it were not taken
}

// StoreReports stores what a runner reports, in one transaction. What was stored before
// is passed over. fault.Conflict: the attempt has ended.
func (s *Service) StoreReports(ctx context.Context, buildID string, number int32, runnerID string, reports []*schedulerv1.Report) (StoredReports, error) {
	var done StoredReports
	var spans []func()
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		done, spans = StoredReports{}, nil
		var b *store.Build
		var err error
		// Locked first where it will be changed, so that everybody locks in one order.
		if slices.ContainsFunc(reports, changesBuild) {
			if b, err = t.Build(ctx, buildID); err != nil {
				return err
			}
		}
		a, err := t.Attempt(ctx, buildID, number)
		if err != nil {
			return err
		}
		if a.Ended || a.RunnerID != runnerID {
			return attemptOver(a)
		}
		batch := &batch{service: s, tx: t, build: b, attempt: a}
		for _, report := range reports {
			if report.GetSequence() <= a.Sequence {
				continue
			}
			if report.GetSequence() != a.Sequence+1 {
				done.Gap = true
				break
			}
			if err := batch.apply(ctx, report); err != nil {
				return fmt.Errorf("report %d of attempt %s: %w", report.GetSequence(), a.Name(), err)
			}
			a.Sequence = report.GetSequence()
		}
		done.Sequence, done.Ended, spans = a.Sequence, batch.end != nil, batch.spans
		if err := batch.store(ctx); err != nil || batch.end == nil || batch.build.GetKeptUntilTime() == nil {
			return err
		}
		done.KeptFor = batch.build.GetKeptUntilTime().AsTime().Sub(t.Now)
		return nil
	})
	if err != nil {
		return StoredReports{}, err
	}
	for _, record := range spans {
		record()
	}
	return done, nil
}

func attemptOver(a *store.Attempt) error {
	return fault.Newf(fault.Conflict, "attempt %s has ended or belongs to another runner", a.Name())
}

func changesBuild(r *schedulerv1.Report) bool {
	return r.GetSourceUnpacked() != nil || r.GetStepStarted() != nil || r.GetEnded() != nil
}

// batch collects what several reports change.
type batch struct {
	service *Service
	tx      *store.Tx
	build   *store.Build // nil where no report concerns it
	attempt *store.Attempt

	steps  map[int32]*schedulerv1.Step // loaded when first needed
	dirty  []*schedulerv1.Step
	output []byte // not stored yet; its end is the end of the log
	notes  logs.Notes
	tests  tests.Batch
	end    *schedulerv1.Ended
	spans  []func()
}

func (b *batch) apply(ctx context.Context, report *schedulerv1.Report) error {
	if b.end != nil {
		return fault.New(fault.Invalid, "nothing comes after the end")
	}
	at := b.tx.Now
	if report.GetTime() != nil {
		at = report.GetTime().AsTime()
	}
	switch event := report.GetEvent().(type) {
	case *schedulerv1.Report_SourceUnpacked:
		b.build.SourceTime = timestamppb.New(at)
		return b.tx.SaveBuild(ctx, b.build)
	case *schedulerv1.Report_StepStarted:
		return b.stepStarted(ctx, event.StepStarted, at)
	case *schedulerv1.Report_Output:
		if len(event.Output.GetData()) > logs.MaxOutput {
			return fault.Newf(fault.Invalid, "output: at most %d bytes in one report", logs.MaxOutput)
		}
		data := b.service.logs.Admitted(b.attempt.LogSize, event.Output.GetData())
		if b.output == nil && len(data) > logs.CompressFrom { // there is more to come, it seems
			b.output = make([]byte, 0, logs.ChunkSize+logs.MaxOutput)
		}
		b.output = append(b.output, data...)
		b.notes.Times = append(b.notes.Times, logs.Stamp{Position: b.attempt.LogSize, Time: at})
		b.attempt.LogSize += int64(len(data))
		if len(b.output) >= logs.ChunkSize {
			return b.storeOutput(ctx)
		}
	case *schedulerv1.Report_StepEnded:
		return b.stepEnded(ctx, event.StepEnded, at)
	case *schedulerv1.Report_Outputs:
		return b.storeOutputs(ctx, event.Outputs.GetValues())
	case *schedulerv1.Report_Kept:
		b.tx.OnCommit(func() { b.service.metrics.kept(ctx, event.Kept) })
	case *schedulerv1.Report_Tests:
		b.tests.Add(event.Tests)
	case *schedulerv1.Report_Spans:
		return b.storeSpans(ctx, event.Spans)
	case *schedulerv1.Report_Ended:
		b.end = event.Ended
	}
	// What a newer runner reports besides is numbered, and no more.
	return nil
}

func (b *batch) stepStarted(ctx context.Context, started *schedulerv1.StepStarted, at time.Time) error {
	step, err := b.step(ctx, started.GetNumber())
	if err != nil {
		return err
	}
	if step.GetState() != schedulerv1.Step_STATE_PENDING {
		return fault.Newf(fault.Invalid, "step %d was started before", started.GetNumber())
	}
	step.State, step.StartTime, step.LogOffset = schedulerv1.Step_STATE_RUNNING, timestamppb.New(at), b.attempt.LogSize
	b.notes.Steps = append(b.notes.Steps, b.attempt.LogSize)
	if b.build.GetStartTime() == nil {
		b.build.StartTime = timestamppb.New(at)
		b.attempt.Deadline = b.tx.Now.Add(b.service.overtime(b.build))
		return b.tx.SaveBuild(ctx, b.build)
	}
	return nil
}

func (b *batch) stepEnded(ctx context.Context, told *schedulerv1.StepEnded, at time.Time) error {
	step, err := b.step(ctx, told.GetNumber())
	if err != nil {
		return err
	}
	if step.GetState() != schedulerv1.Step_STATE_RUNNING {
		return fault.Newf(fault.Invalid, "step %d ended without having run", told.GetNumber())
	}
	step.EndTime = timestamppb.New(at)
	switch {
	case told.GetStopped():
		step.State = schedulerv1.Step_STATE_STOPPED
	case told.GetExitCode() == 0:
		step.State, step.ExitCode = schedulerv1.Step_STATE_PASSED, new(int32(0))
	default:
		step.State, step.ExitCode = schedulerv1.Step_STATE_FAILED, new(told.GetExitCode())
		step.OutOfMemory = told.GetOutOfMemory()
	}
	traceparent, err := b.traceparent(ctx)
	b.spans = append(b.spans, func() {
		run := runSpan(traceparent, b.attempt.Name())
		of := over{
			parent: run, own: stepSpan(run, step.GetNumber()), name: "step " + step.GetName(), start: step.GetStartTime().AsTime(), end: at,
			attributes: []attribute.KeyValue{
				semconv.CICDPipelineTaskName(cmp.Or(step.GetName(), step.GetRun())), semconv.CICDPipelineTaskRunID(b.attempt.Name() + "-" + strconv.Itoa(int(step.GetNumber()))),
				semconv.CICDPipelineRunID(b.attempt.BuildID), taskResult(step), semconv.ProcessExitCode(int(told.GetExitCode())),
			},
		}
		if b.attempt.Machine != "" {
			of.attributes = append(of.attributes, semconv.HostName(b.attempt.Machine))
		}
		if step.GetState() == schedulerv1.Step_STATE_FAILED {
			of.failed = "exit code " + strconv.Itoa(int(told.GetExitCode()))
		}
		b.service.span(ctx, of)
	})
	return err
}

// taskResult is how a step has ended in the words of the convention.
func taskResult(step *schedulerv1.Step) attribute.KeyValue {
	switch step.GetState() {
	case schedulerv1.Step_STATE_PASSED:
		return semconv.CICDPipelineTaskRunResultSuccess
	case schedulerv1.Step_STATE_FAILED:
		return semconv.CICDPipelineTaskRunResultFailure
	default:
		return semconv.CICDPipelineTaskRunResultCancellation
	}
}

func (b *batch) traceparent(ctx context.Context) (traceparent string, err error) {
	if b.build != nil {
		return b.build.Traceparent, nil
	}
	err = b.tx.QueryRowContext(ctx, `SELECT traceparent FROM builds WHERE id = $1`, b.attempt.BuildID).Scan(&traceparent)
	return traceparent, err
}

// step is a step to be changed.
func (b *batch) step(ctx context.Context, number int32) (*schedulerv1.Step, error) {
	if b.steps == nil {
		known := b.build
		if known == nil {
			var err error
			if known, err = store.ReadBuild(ctx, b.tx, b.attempt.BuildID, ""); err != nil {
				return nil, err
			}
		}
		all, err := store.Steps(ctx, b.tx, known)
		if err != nil {
			return nil, err
		}
		b.steps = map[int32]*schedulerv1.Step{}
		for _, step := range all {
			b.steps[step.GetNumber()] = step
		}
	}
	step := b.steps[number]
	if step == nil {
		return nil, fault.Newf(fault.Invalid, "there is no step %d", number)
	}
	if !slices.Contains(b.dirty, step) {
		b.dirty = append(b.dirty, step)
	}
	return step, nil
}

func (b *batch) storeOutput(ctx context.Context) error {
	if len(b.output) == 0 {
		return nil
	}
	err := b.service.logs.Append(ctx, b.tx, b.attempt, b.attempt.LogSize-int64(len(b.output)), b.output, b.notes)
	printed := int64(len(b.output))
	b.tx.OnCommit(func() { b.service.metrics.printed.Add(ctx, printed) })
	b.output, b.notes.Times = nil, nil
	return err
}

// storeTests keeps what tests have reported, before an end settles it.
func (b *batch) storeTests(ctx context.Context) error {
	if b.tests.Empty() {
		return nil
	}
	of := b.build
	if of == nil {
		var err error
		if of, err = store.ReadBuild(ctx, b.tx, b.attempt.BuildID, ""); err != nil {
			return err
		}
	}
	return b.tests.Store(ctx, b.tx, b.service.environments.Policy, of, b.attempt.Number)
}

// maxOutputs bounds what one job hands on, names and values, in bytes.
const maxOutputs = 64 << 10

// storeOutputs keeps what a job hands on. Its container may be anybody's: what it
// was not asked for is left out where it is handed on.
func (b *batch) storeOutputs(ctx context.Context, values map[string]string) error {
	size := 0
	for name, value := range values {
		size += len(name) + len(value)
	}
	if size > maxOutputs {
		return fault.Newf(fault.Invalid, "outputs: at most %d bytes", maxOutputs)
	}
	return b.tx.SaveOutputs(ctx, b.attempt.BuildID, values)
}

// store writes what the batch changed; an end ends the build too.
func (b *batch) store(ctx context.Context) error {
	if err := b.storeOutput(ctx); err != nil {
		return err
	}
	if err := b.storeTests(ctx); err != nil {
		return err
	}
	for _, step := range b.dirty {
		if err := b.tx.SaveStep(ctx, b.attempt, step); err != nil {
			return err
		}
	}
	if len(b.dirty) > 0 {
		b.tx.Notify(store.BuildTopic(b.attempt.BuildID))
	}
	b.attempt.Contact = b.tx.Now
	if err := b.tx.SaveAttempt(ctx, b.attempt); err != nil || b.end == nil {
		return err
	}
	all, err := store.Steps(ctx, b.tx, b.build)
	if err != nil {
		return err
	}
	o := outcomeOf(b.end, all, b.build.Cancel)
	if o.reason == schedulerv1.Build_REASON_OUT_OF_MEMORY {
		o.message += ": " + b.service.outOfMemory(b.build)
	}
	if b.end.GetCause() == schedulerv1.Ended_CAUSE_STOPPED { // by a Docker engine that restarts, or a node that is drained
		return b.service.lose(ctx, b.tx, b.build, 1, o.message)
	}
	if o.state == schedulerv1.Build_STATE_FAILED && retried(b.build, all) {
		return again(ctx, b.tx, b.build, o.reason, fmt.Sprintf("attempt %d failed, queued once more: %s", b.build.GetAttempt(), o.message))
	}
	if retry := b.build.ConfigJob().GetRetry(); o.reason == schedulerv1.Build_REASON_IMAGE_BUILD && b.build.Cancel.Time.IsZero() &&
		retry.GetLost() && b.build.GetAttempt() <= retry.GetTimes() {
		return again(ctx, b.tx, b.build, o.reason, fmt.Sprintf("attempt %d ended, queued once more: %s", b.build.GetAttempt(), o.message))
	}
	if err := keep(ctx, b.service, b.tx, b.build, b.attempt, o); err != nil {
		return err
	}
	if err := b.service.Finish(ctx, b.tx, b.build, o.state, o.reason, o.message); err != nil || b.build.GetKeptUntilTime() == nil {
		return err
	}
	return b.service.leave(ctx, b.tx, store.WholeID(b.build.GetId())) // its container holds up nobody
}
