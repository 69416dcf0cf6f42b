package scheduler

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

const (
	// reportTimeout bounds one call, well within a lease: the reporter only stores.
	reportTimeout = due.Lease * 2 / 3

	reportRetryFirst = 100 * time.Millisecond
	reportRetryMost  = 30 * time.Second
)

// report tells the reporter how the build of a target stands. The build is read
// after the version, so a version never comes with an older state.
func (s *Service) report(ctx context.Context, c target) {
	ctx = telemetry.WithTraceparent(ctx, c.traceparent)
	err := s.tellReporter(ctx, c)
	again := s.again(ctx, c.tries, err, "report", c.buildID)
	err = s.write(ctx, func(ctx context.Context, t *tx) error { return t.settleTarget(ctx, c, again) })
	if err != nil {
		s.Log.WarnContext(ctx, "report not settled; told again when its lease is over", "build", c.buildID, "error", err)
	}
}

func (s *Service) tellReporter(ctx context.Context, c target) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	b, err := s.readWhole(ctx, c.buildID)
	if err != nil {
		return err
	}
	printed, err := s.lastOutput(ctx, b)
	if err != nil {
		return err
	}
	_, err = s.reporter.Report(ctx, &reporterv1.ReportRequest{Build: b, Version: c.version, Output: printed})
	return err
}

// reportedOutput is how much of a step's output goes with a report.
const reportedOutput = 64 << 10

// lastOutput is the last that the step printed at which a build ended, from a
// line's beginning; nothing of a build that passed or still runs.
func (s *Service) lastOutput(ctx context.Context, b *schedulerv1.Build) ([]byte, error) {
	if !ended(b.GetState()) || b.GetState() == schedulerv1.Build_STATE_PASSED || b.GetLogSize() == 0 {
		return nil, nil
	}
	begin, end := int64(0), b.GetLogSize()
	for _, step := range b.GetSteps() {
		if state := step.GetState(); state == schedulerv1.Step_STATE_FAILED || state == schedulerv1.Step_STATE_STOPPED {
			begin = step.GetLogOffset()
		}
	}
	cut := end-begin > reportedOutput
	if cut {
		begin = end - reportedOutput
	}
	var printed []byte
	for piece, err := range pieces(s.pages(ctx, b.GetId(), b.GetAttempt()), begin, end) {
		if fault.Is(err, fault.NotFound) { // pruned meanwhile
			break
		}
		if err != nil {
			return nil, err
		}
		printed = append(printed, piece.data...)
	}
	if cut {
		_, printed, _ = bytes.Cut(printed, []byte("\n"))
	}
	return printed[:min(len(printed), reportedOutput)], nil
}

// promote asks the reporter for the pull request into production.
func (s *Service) promote(ctx context.Context, c promotion) {
	ctx = telemetry.WithTraceparent(ctx, c.traceparent)
	call, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := s.reporter.Promote(call, c.request)
	again := s.again(ctx, c.tries, err, "promotion", c.request.GetSha())
	err = s.write(ctx, func(ctx context.Context, t *tx) error { return t.settlePromotion(ctx, c, again, c.tries+1) })
	if err != nil {
		s.Log.WarnContext(ctx, "promotion not settled; asked for again when its lease is over", "error", err)
	}
}

// again says when to try again after an error, for ever; the zero time after
// none.
func (s *Service) again(ctx context.Context, tries int, err error, what, of string) time.Time {
	if err == nil {
		return time.Time{}
	}
	wait := due.Backoff(tries+1, reportRetryFirst, reportRetryMost, rand.Float64)
	s.Log.WarnContext(ctx, "the reporter has not taken it", "what", what, "of", of, "retry_in", wait, "error", err)
	return s.Now().Add(wait)
}
