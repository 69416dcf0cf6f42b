package scheduler

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

const (
	tokenHeader = "forge-runner-token"
	// What a runner sends while a transaction is under way goes into the next.
	batchReports = 128
	// pollEvery finds what other replicas changed.
	pollEvery = time.Second
)

// runnerService is apart from Service because both serve on listeners of their own.
type runnerService struct {
	schedulerv1.UnimplementedRunnerServiceServer
	service *Service
}

// Attach serves one stream of one attempt.
func (r runnerService) Attach(stream schedulerv1.RunnerService_AttachServer) error {
	s, ctx := r.service, stream.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get(tokenHeader)
	if len(tokens) != 1 {
		return fault.Newf(fault.Unauthenticated, "send the attempt's token as %s", tokenHeader)
	}
	buildID, number, err := s.store.attemptByToken(ctx, tokenHash(tokens[0]))
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	hello := first.GetHello()
	if hello.GetRunnerId() == "" {
		return fault.New(fault.Invalid, "the first message is a Hello with a runner id")
	}
	b, a, err := s.bind(ctx, buildID, number, hello.GetRunnerId())
	if err != nil {
		return err
	}
	ctx = telemetry.WithTraceparent(ctx, b.traceparent)
	s.Log.DebugContext(ctx, "runner attached", "attempt", a.name(), "version", hello.GetVersion(), "stored", a.sequence)
	at := &attachment{service: s, stream: stream, build: b, attempt: a}
	return at.serve(ctx, hello)
}

// bind gives an attempt to the first runner that says hello, and to that one
// again.
func (s *Service) bind(ctx context.Context, buildID string, number int32, runnerID string) (b *build, a *attempt, err error) {
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		if b, err = t.build(ctx, buildID); err != nil {
			return err
		}
		if a, err = t.attempt(ctx, buildID, number); err != nil {
			return err
		}
		if a.ended || (a.runnerID != "" && a.runnerID != runnerID) {
			return attemptOver(a)
		}
		a.runnerID, a.contact, a.placed = runnerID, t.now, true
		if b.GetState() == schedulerv1.Build_STATE_RUNNING {
			return t.saveAttempt(ctx, a)
		}
		a.deadline = t.now.Add(s.overtime(b))
		b.State, b.Reason, b.Message = schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_REASON_UNSPECIFIED, ""
		b.due, b.tries = time.Time{}, 0
		if err := t.saveAttempt(ctx, a); err != nil {
			return err
		}
		return t.saveBuild(ctx, b)
	})
	return b, a, err
}

// attachment is one live stream. Only serve sends on it.
type attachment struct {
	service *Service
	stream  schedulerv1.RunnerService_AttachServer
	build   *build
	attempt *attempt

	toldCancel bool
	contact    time.Time
}

func (at *attachment) serve(ctx context.Context, hello *schedulerv1.Hello) error {
	if err := at.welcome(ctx, hello); err != nil {
		return err
	}
	var working sync.WaitGroup
	defer working.Wait()
	ctx, leave := context.WithCancel(ctx)
	defer leave()

	var source chan *schedulerv1.SourceChunk // nil: never ready
	var noSource chan error
	if !hello.GetHasSource() {
		source, noSource = make(chan *schedulerv1.SourceChunk, 4), make(chan error, 1)
		working.Go(func() { noSource <- at.service.fetchSource(ctx, at.build, source) })
	}
	incoming, gone := receive(ctx, at.stream)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	steered, unsubscribe := at.service.hub.subscribe(runnerTopic(at.build.GetId()))
	defer unsubscribe()
	if err := at.steer(ctx); err != nil {
		return err
	}
	for {
		var err error
		var over bool
		select {
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: attach again")
		case err = <-gone:
			return endOfStream(err)
		case report := <-incoming:
			over, err = at.store(ctx, drain(report, incoming))
		case chunk := <-source:
			err = at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: chunk}})
		case err = <-noSource:
			noSource = nil
		case <-steered:
			err = at.steer(ctx)
		case <-poll.C:
			err = at.steer(ctx)
		}
		if over || err != nil {
			return err
		}
	}
}

// endOfStream is nil where the runner itself has ended the stream.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (at *attachment) welcome(ctx context.Context, hello *schedulerv1.Hello) error {
	err := at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Welcome{
		Welcome: &schedulerv1.Welcome{StoredSequence: at.attempt.sequence},
	}})
	if err != nil || hello.GetHasPlan() {
		return err
	}
	plan, err := at.service.runnerPlan(ctx, at.build)
	if err == nil && len(plan.GetSecrets()) > 0 && !hello.GetMasksSecrets() {
		err = noSecretsError("this build needs secrets, and its forgexec is too old to mask them in the log: replace it by the one that came with Forge")
	}
	if is[noSecretsError](err) {
		return at.service.giveUp(ctx, at.attempt, err.Error())
	}
	if err != nil {
		return err
	}
	return at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Plan{Plan: plan}})
}

// giveUp ends an attempt that has not begun its work, since it lacks secrets.
func (s *Service) giveUp(ctx context.Context, of *attempt, message string) error {
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		b, err := t.build(ctx, of.buildID)
		if err != nil {
			return err
		}
		a, err := t.attempt(ctx, of.buildID, of.number)
		if err != nil || a.ended {
			return err
		}
		return s.finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_SECRET_UNAVAILABLE, message)
	})
	if err != nil {
		return err
	}
	return attemptOver(of)
}

// receive reads reports until the stream ends, which gRPC sees to when its
// handler returns.
func receive(ctx context.Context, stream schedulerv1.RunnerService_AttachServer) (<-chan *schedulerv1.Report, <-chan error) {
	incoming, gone := make(chan *schedulerv1.Report, batchReports), make(chan error, 1)
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				gone <- err
				return
			}
			select {
			case incoming <- message.GetReport():
			case <-ctx.Done():
				return
			}
		}
	}()
	return incoming, gone
}

// drain takes what has arrived besides.
func drain(first *schedulerv1.Report, incoming <-chan *schedulerv1.Report) []*schedulerv1.Report {
	batch := []*schedulerv1.Report{first}
	for len(batch) < batchReports {
		select {
		case next := <-incoming:
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

// store keeps reports and acknowledges them; over after the last of the attempt.
func (at *attachment) store(ctx context.Context, batch []*schedulerv1.Report) (over bool, err error) {
	var numbered []*schedulerv1.Report
	for _, report := range batch {
		if report.GetSequence() > 0 {
			numbered = append(numbered, report)
		}
	}
	if len(numbered) == 0 {
		return false, at.heard(ctx)
	}
	done, err := at.service.take(ctx, at.attempt.buildID, at.attempt.number, at.attempt.runnerID, numbered)
	if err != nil {
		return false, err
	}
	at.contact = at.service.Now()
	err = at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Ack{Ack: &schedulerv1.Ack{Sequence: done.sequence}}})
	if err == nil && done.gap {
		err = fault.Newf(fault.Unavailable, "a report after %d is missing: attach again", done.sequence)
	}
	return done.ended, err
}

// heard notes a sign of life, not more often than one is due.
func (at *attachment) heard(ctx context.Context) error {
	now := at.service.Now()
	if now.Sub(at.contact) < at.service.Heartbeat {
		return nil
	}
	at.contact = now
	return at.service.write(ctx, func(ctx context.Context, t *tx) error {
		return t.heard(ctx, at.attempt.buildID, at.attempt.number)
	})
}

// steer tells the runner, once, that it is to stop, and leaves an attempt that
// ended otherwise.
func (at *attachment) steer(ctx context.Context) error {
	pool := at.service.store.db.Read()
	a, err := readAttempt(ctx, pool, at.attempt.buildID, at.attempt.number, "")
	if err != nil {
		return err
	}
	if a.ended {
		return attemptOver(a)
	}
	b, err := readBuild(ctx, pool, at.attempt.buildID, "")
	if err != nil || at.toldCancel || b.cancel.time.IsZero() {
		return err
	}
	at.toldCancel = true
	return at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Cancel{Cancel: &schedulerv1.Cancel{Message: b.cancel.message}}})
}
