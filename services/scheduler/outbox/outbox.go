package outbox

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/tests"
)

const (
	// reportTimeout bounds one call, well within a lease: the reporter only stores.
	reportTimeout = due.Lease * 2 / 3

	reportRetryFirst = 100 * time.Millisecond
	reportRetryMost  = 30 * time.Second
)

// Service tells the reporter what it is to tell GitHub.
type Service struct {
	store    *store.Store
	logs     *logs.Service
	tests    *tests.Service
	capacity int
	Reporter reporterv1.ReportServiceClient
	now      func() time.Time
	log      *slog.Logger

	Reports    *due.Loop[store.Target]
	Promotions *due.Loop[store.Promotion]
	Answers    *due.Loop[store.Answer]
}

// Deps is what the outbox needs.
type Deps struct {
	Store    *store.Store
	Logs     *logs.Service
	Tests    *tests.Service
	Reporter grpc.ClientConnInterface
	Capacity int // how many builds run at once
	Log      *slog.Logger
}

// New returns the outbox; Run makes it tell the reporter.
func New(d Deps) *Service {
	s := &Service{store: d.Store, logs: d.Logs, tests: d.Tests, capacity: d.Capacity, Reporter: reporterv1.NewReportServiceClient(d.Reporter), now: d.Store.Now, log: d.Log}
	s.Reports = &due.Loop[store.Target]{Name: "reports", Workers: 8, Log: d.Log, Claim: d.Store.ClaimTargets, Work: s.Report}
	s.Promotions = &due.Loop[store.Promotion]{Name: "promotions", Workers: 2, Log: d.Log, Claim: d.Store.ClaimPromotions, Work: s.promote}
	s.Answers = &due.Loop[store.Answer]{Name: "answers", Workers: 2, Log: d.Log, Claim: d.Store.ClaimAnswers, Work: s.answer}
	return s
}

// Run tells the reporter until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.Reports.Run, s.Promotions.Run, s.Answers.Run} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// Wakes are the loops of what the reporter is told, by their queues.
func (s *Service) Wakes() map[store.Queue]func() {
	return map[store.Queue]func(){store.TargetQueue: s.Reports.Wake, store.PromotionQueue: s.Promotions.Wake, store.AnswerQueue: s.Answers.Wake}
}

// Report tells the reporter how the build of a target stands. The build is read
// after the version, so a version never comes with an older state.
func (s *Service) Report(ctx context.Context, c store.Target) {
	ctx = telemetry.WithTraceparent(ctx, c.Traceparent)
	err := s.tellReporter(ctx, c)
	again := s.again(ctx, c.Tries, err, "report", c.BuildID)
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return c.Settle(ctx, t, again) })
	if err != nil {
		s.log.WarnContext(ctx, "report not settled; told again when its lease is over", "build", c.BuildID, "error", err)
	}
}

func (s *Service) tellReporter(ctx context.Context, c store.Target) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	b, err := s.store.ReadWhole(ctx, c.BuildID)
	if err != nil {
		return err
	}
	if err := store.ForPlaces(ctx, s.store, s.capacity, b); err != nil {
		return err
	}
	printed, err := s.LastOutput(ctx, b)
	if err != nil {
		return err
	}
	told, err := s.tests.ForReport(ctx, b)
	if err != nil {
		return err
	}
	_, err = s.Reporter.Report(ctx, &reporterv1.ReportRequest{Build: b, Version: c.Version, Standing: c.Standing, Output: printed, Tests: told})
	return err
}

// ReportedOutput is how much of a step's output goes with a report.
const ReportedOutput = 64 << 10

// LastOutput is the last that the step printed at which a build ended, from a
// line's beginning; nothing of a build that passed or still runs.
func (s *Service) LastOutput(ctx context.Context, b *schedulerv1.Build) ([]byte, error) {
	if !store.Ended(b.GetState()) || b.GetState() == schedulerv1.Build_STATE_PASSED || b.GetLogSize() == 0 {
		return nil, nil
	}
	begin, end := int64(0), b.GetLogSize()
	for _, step := range b.GetSteps() {
		if state := step.GetState(); state == schedulerv1.Step_STATE_FAILED || state == schedulerv1.Step_STATE_STOPPED {
			begin = step.GetLogOffset()
		}
	}
	cut := end-begin > ReportedOutput
	if cut {
		begin = end - ReportedOutput
	}
	var printed []byte
	for piece, err := range logs.Pieces(s.logs.Read(ctx, b.GetId(), b.GetAttempt()), begin, end) {
		if fault.Is(err, fault.NotFound) { // pruned meanwhile
			break
		}
		if err != nil {
			return nil, err
		}
		printed = append(printed, piece.Data...)
	}
	if cut {
		_, printed, _ = bytes.Cut(printed, []byte("\n"))
	}
	return printed[:min(len(printed), ReportedOutput)], nil
}

// promote asks the reporter for the pull request into production.
func (s *Service) promote(ctx context.Context, c store.Promotion) {
	ctx = telemetry.WithTraceparent(ctx, c.Traceparent)
	call, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := s.Reporter.Promote(call, c.Request)
	again := s.again(ctx, c.Tries, err, "promotion", c.Request.GetSha())
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return c.Settle(ctx, t, again, c.Tries+1) })
	if err != nil {
		s.log.WarnContext(ctx, "promotion not settled; asked for again when its lease is over", "error", err)
	}
}

// again says when to try again after an error, for ever; the zero time after
// none.
func (s *Service) again(ctx context.Context, tries int, err error, what, of string) time.Time {
	if err == nil {
		return time.Time{}
	}
	wait := due.Backoff(tries+1, reportRetryFirst, reportRetryMost, rand.Float64)
	s.log.WarnContext(ctx, "the reporter has not taken it", "what", what, "of", of, "retry_in", wait, "error", err)
	return s.now().Add(wait)
}

// answer asks the reporter to answer a comment.
func (s *Service) answer(ctx context.Context, c store.Answer) {
	ctx = telemetry.WithTraceparent(ctx, c.Traceparent)
	call, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := s.Reporter.Answer(call, c.Request)
	again := s.again(ctx, c.Tries, err, "answer", c.Comment)
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return c.Settle(ctx, t, again, c.Tries+1) })
	if err != nil {
		s.log.WarnContext(ctx, "answer not settled; asked for again when its lease is over", "error", err)
	}
}
