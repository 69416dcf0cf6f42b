package forgexec

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/traceparent"
)

// sequence is the steps of a plan on their way.
type sequence struct {
	*runner
	plan  *schedulerv1.Plan
	file  *envFile
	spans *spanIntake
	ctx   context.Context //nolint:containedctx // it is replaced once the build is stopped

	failed  bool               // a step has
	broken  error              // why an image was not built, which lies in nothing here
	because string             // why the first step failed, where it does not say so itself
	stopped *schedulerv1.Ended // why no ordinary step runs any more; nil while they do
	late    context.Context    //nolint:containedctx // that of the halt; nil: nothing may follow it
	last    int32              // the number of the last that ran
}

// run runs the steps that are to be, one after the other.
func (s *sequence) run() *schedulerv1.Ended {
	forget := func() {}
	defer func() { forget() }()
	for n, step := range s.plan.GetSteps() {
		if s.stopped == nil && s.ctx.Err() != nil && s.wants(step.GetWhen()) {
			forget = s.stop()
		}
		if !s.wants(step.GetWhen()) {
			continue
		}
		if s.ctx.Err() != nil { // what follows a stop has had its time, or nobody may run anything any more
			break
		}
		end, err := s.one(step, n == len(s.plan.GetSteps())-1)
		if end == nil {
			if s.failed || s.stopped != nil {
				s.sayf("forge: step %d was not run: %v", step.GetNumber(), err)
				break
			}
			return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_NOT_RUNNABLE, Message: err.Error()}
		}
		s.last = step.GetNumber()
		if problem := s.file.read(); problem != nil && !end.GetStopped() {
			s.sayf("forge: %v", problem)
			if end.GetExitCode() == 0 {
				end.ExitCode = 1
			}
		}
		s.spans.flush(s.report)
		s.report(&schedulerv1.Report{Event: &schedulerv1.Report_StepEnded{StepEnded: end}})
		s.failed = s.failed || end.GetStopped() || end.GetExitCode() != 0
		if end.GetStopped() && s.stopped == nil {
			forget = s.stop()
		}
	}
	switch {
	case s.stopped != nil:
		return s.stopped
	case s.broken != nil:
		return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_IMAGE, Message: s.broken.Error()}
	default:
		return &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_DONE, Message: s.because}
	}
}

// one runs a step. It has no end where it could not be started.
func (s *sequence) one(step *schedulerv1.PlannedStep, last bool) (*schedulerv1.StepEnded, error) {
	if step.GetImage() != nil {
		end, err := s.imageStep(s.ctx, step, last)
		if s.broken == nil && !s.failed {
			s.broken = err
		}
		return end, err
	}
	env := joined(s.environ, s.plan.GetEnvironment(), s.file.set, s.plan.GetSecrets(), map[string]string{envFileEnv: s.file.path}, s.traced(step), s.spans.variables())
	s.spans.begin(step.GetNumber())
	return s.step(s.ctx, step, last, s.plan, env)
}

// traced are the variables by which a command's own spans become children of its step's,
// to which the scheduler gives the same id.
func (s *sequence) traced(step *schedulerv1.PlannedStep) map[string]string {
	parent := ofStep(s.plan.GetEnvironment()["TRACEPARENT"], step.GetNumber())
	if parent == "" {
		return nil
	}
	return map[string]string{"TRACEPARENT": parent, "TRACESTATE": "forge=" + traceparent.SpanID(parent)}
}

// ofStep is the traceparent of a step below that of its run.
func ofStep(run string, number int32) string {
	return traceparent.Below(run, fmt.Sprintf("step %d", number))
}

// stop has only those steps run from here on that are there for it, within a time
// of their own.
func (s *sequence) stop() (forget context.CancelFunc) {
	why := halted(s.ctx)
	s.stopped, s.late = why.ended(), why.late
	if why.late == nil {
		return func() {}
	}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeoutCause(why.late, cmp.Or(s.plan.GetCleanup().AsDuration(), time.Minute), why)
	return cancel
}

// wants reports whether a step is to be run.
func (s *sequence) wants(when configv1.Command_When) bool {
	switch when {
	case configv1.Command_WHEN_ALWAYS:
		return true
	case configv1.Command_WHEN_FAILURE:
		if s.stopped != nil {
			return s.stopped.GetCause() == schedulerv1.Ended_CAUSE_TIMED_OUT
		}
		return s.failed
	default:
		return !s.failed && s.stopped == nil
	}
}

// sayf puts a line of ours at the end of what the last step printed, if any ran.
func (s *sequence) sayf(format string, args ...any) {
	if s.last == 0 {
		return
	}
	text := s.masker.String(fmt.Sprintf(format, args...)) + "\n"
	s.report(&schedulerv1.Report{Event: &schedulerv1.Report_Output{Output: &schedulerv1.Output{Number: s.last, Data: []byte(text)}}})
}

// handOn reports the outputs that steps have set.
func (s *sequence) handOn() {
	values := map[string]string{}
	for _, name := range s.plan.GetOutputs() {
		value, set := s.file.set[name]
		if !set {
			continue
		}
		values[name] = s.masker.String(value)
		if values[name] != value {
			s.sayf("forge: output %s holds a secret, which is handed on as ***", name)
		}
	}
	if len(values) > 0 {
		s.report(&schedulerv1.Report{Event: &schedulerv1.Report_Outputs{Outputs: &schedulerv1.Outputs{Values: values}}})
	}
}

// isOurs reports whether a variable is one that Forge or the shell sets.
func isOurs(name string) bool {
	return strings.HasPrefix(name, "FORGE") || slices.Contains([]string{
		"CI", "TRACEPARENT", "TRACESTATE", "BAGGAGE", "PWD", "OLDPWD", "SHLVL", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH",
	}, name)
}
