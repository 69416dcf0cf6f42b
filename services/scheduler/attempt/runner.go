package attempt

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/secrets"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// TokenHeader is the metadata in which a runner shows its token.
	TokenHeader = "forge-runner-token"
	// What a runner sends while a transaction is under way goes into the next.
	batchReports = 128
	// batchTests is about how many results one transaction stores.
	batchTests = 2000
)

// runnerService is apart from Service because both serve on listeners of their own.
type runnerService struct {
	schedulerv1.UnimplementedRunnerServiceServer
	service *Service
}

// Attach serves one stream of one attempt. Thousands of them are silent for hours, so
// that what is needed at the beginning alone is kept out of the way: neither on the
// stack nor in the attachment.
func (r runnerService) Attach(stream schedulerv1.RunnerService_AttachServer) error {
	var begun *beginning
	err := rpc.Aside(stream.Context(), func(ctx context.Context) (err error) {
		begun, err = r.begin(ctx, stream)
		return err
	})
	if err != nil || begun == nil {
		return err
	}
	return begun.serve()
}

// begin hears who has come, and tells him what he lacks; nil where the stream ends
// before.
func (r runnerService) begin(ctx context.Context, stream schedulerv1.RunnerService_AttachServer) (*beginning, error) {
	s := r.service
	buildID, number, err := r.attemptOf(ctx)
	if err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, endOfStream(err)
	}
	hello := first.GetHello()
	if hello.GetRunnerId() == "" {
		return nil, fault.New(fault.Invalid, "the first message is a Hello with a runner id")
	}
	b, a, err := s.Bind(ctx, buildID, number, hello)
	if err != nil {
		return nil, err
	}
	if a.Ended {
		return nil, stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Welcome{
			Welcome: &schedulerv1.Welcome{StoredSequence: a.Sequence, KeptFor: durationpb.New(a.Kept.Sub(s.now()))},
		}})
	}
	ctx = telemetry.WithTraceparent(ctx, b.Traceparent)
	s.log.DebugContext(ctx, "runner attached", "attempt", a.Name(), "version", hello.GetVersion(), "stored", a.Sequence)
	begun := &beginning{attachment: &attachment{service: s, stream: stream, attempt: a}, ctx: ctx, build: b, hello: hello}
	begun.steered, begun.unsubscribe = s.store.Notifier.Subscribe(store.RunnerTopic(a.BuildID))
	if err = begun.welcome(); err == nil {
		err = begun.checkCancel(ctx)
	}
	if err != nil {
		begun.unsubscribe()
		return nil, err
	}
	return begun, nil
}

// attemptOf is the attempt whose token a call shows.
func (r runnerService) attemptOf(ctx context.Context) (buildID string, number int32, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get(TokenHeader)
	if len(tokens) != 1 {
		return "", 0, fault.Newf(fault.Unauthenticated, "send the attempt's token as %s", TokenHeader)
	}
	return r.service.store.AttemptByToken(ctx, TokenHash(tokens[0]))
}

// Bind gives an attempt to the first runner that says hello, and to that one
// again. One that has ended is only where its container is kept.
func (s *Service) Bind(ctx context.Context, buildID string, number int32, hello *schedulerv1.Hello) (b *store.Build, a *store.Attempt, err error) {
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if b, a, err = store.BuildOf(ctx, t, buildID, number); err != nil {
			return err
		}
		if a.RunnerID == hello.GetRunnerId() && a.IsKept(t.Now) {
			return nil
		}
		if a.Ended || (a.RunnerID != "" && a.RunnerID != hello.GetRunnerId()) {
			return attemptOver(a)
		}
		a.RunnerID, a.Keeps, a.Contact, a.Placed = hello.GetRunnerId(), hello.GetKeepsContainer(), t.Now, true
		if b.GetState() == schedulerv1.Build_STATE_RUNNING {
			return t.SaveAttempt(ctx, a)
		}
		a.Deadline = t.Now.Add(s.overtime(b))
		b.State, b.Reason, b.Message = schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_REASON_UNSPECIFIED, ""
		b.Due, b.Tries = time.Time{}, 0
		b.ContainerTime = timestamppb.New(t.Now)
		if err := t.SaveAttempt(ctx, a); err != nil {
			return err
		}
		if err := t.SaveBuild(ctx, b); err != nil {
			return err
		}
		return noteRunning(ctx, t, b)
	})
	return b, a, err
}

// attachment is one live stream. Only serve sends on it.
type attachment struct {
	service *Service
	stream  schedulerv1.RunnerService_AttachServer
	attempt *store.Attempt

	steered     <-chan struct{} // there may be news for the runner
	unsubscribe func()
	toldCancel  bool
}

// beginning is an attachment with what it needs until it has all that it asks for.
type beginning struct {
	*attachment
	ctx   context.Context //nolint:containedctx // of the one call that it begins
	build *store.Build
	hello *schedulerv1.Hello
}

func (begun *beginning) serve() error {
	defer begun.unsubscribe()
	at, ctx := begun.attachment, begun.ctx
	var working sync.WaitGroup
	defer working.Wait()
	ctx, leave := context.WithCancel(ctx)
	defer leave()

	var source chan *schedulerv1.SourceChunk // nil: never ready
	var noSource chan error
	if b, hello := begun.build, begun.hello; !hello.GetHasSource() {
		source, noSource = make(chan *schedulerv1.SourceChunk, 4), make(chan error, 1)
		working.Go(func() { noSource <- sourcing{at.service}.fetchSource(ctx, b, hello, source) })
	}
	incoming, gone := receive(ctx, at.stream)
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
		case <-at.steered:
			err = at.checkCancel(ctx)
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

func (begun *beginning) welcome() error {
	at, ctx, hello := begun.attachment, begun.ctx, begun.hello
	err := at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Welcome{
		Welcome: &schedulerv1.Welcome{StoredSequence: at.attempt.Sequence},
	}})
	if err != nil || hello.GetHasPlan() {
		return err
	}
	plan, err := at.service.runnerPlan(ctx, begun.build)
	if err == nil && len(plan.GetSecrets()) > 0 && !hello.GetMasksSecrets() {
		err = secrets.UnavailableError("this build needs secrets, and its forgexec is too old to mask them in the log: replace it by the one that came with Forge")
	}
	if is[secrets.UnavailableError](err) {
		return at.service.giveUp(ctx, at.attempt, schedulerv1.Build_REASON_SECRET_UNAVAILABLE, err.Error())
	}
	if err == nil && !heedsPlan(plan, hello) {
		return at.service.giveUp(ctx, at.attempt, schedulerv1.Build_REASON_NOT_RUNNABLE,
			"this build uses when, shell, working_directory, outputs or artifacts, and its forgexec is too old for them: replace it by the one that came with Forge")
	}
	if err == nil && hasImages(begun.build) && !hello.GetBuildsImages() {
		return at.service.giveUp(ctx, at.attempt, schedulerv1.Build_REASON_NOT_RUNNABLE,
			"this build has a step that builds an image, and its forgexec is too old for that: replace it by the one that came with Forge")
	}
	if err != nil {
		return err
	}
	readsPlan(plan, hello)
	return at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Plan{Plan: plan}})
}

// giveUp ends an attempt that has not begun its work, since it lacks what it needs.
func (s *Service) giveUp(ctx context.Context, of *store.Attempt, reason schedulerv1.Build_Reason, message string) error {
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, a, err := store.BuildOf(ctx, t, of.BuildID, of.Number)
		if err != nil || a.Ended {
			return err
		}
		return s.Finish(ctx, t, b, schedulerv1.Build_STATE_ERRORED, reason, message)
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

// drain takes what has arrived besides. What tests have reported is many rows, and
// whoever else writes waits for them.
func drain(first *schedulerv1.Report, incoming <-chan *schedulerv1.Report) []*schedulerv1.Report {
	batch, tests := []*schedulerv1.Report{first}, len(first.GetTests().GetTests())
	for len(batch) < batchReports && tests < batchTests {
		select {
		case next := <-incoming:
			batch = append(batch, next)
			tests += len(next.GetTests().GetTests())
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
		at.service.heartbeats.note(store.AttemptKey{BuildID: at.attempt.BuildID, Number: at.attempt.Number})
		return false, nil
	}
	done, err := at.service.StoreReports(ctx, at.attempt.BuildID, at.attempt.Number, at.attempt.RunnerID, numbered)
	if err != nil {
		return false, err
	}
	ack := &schedulerv1.Ack{Sequence: done.Sequence}
	if done.KeptFor > 0 {
		ack.KeptFor = durationpb.New(done.KeptFor)
	}
	err = at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Ack{Ack: ack}})
	if err == nil && done.Gap {
		err = fault.Newf(fault.Unavailable, "a report after %d is missing: attach again", done.Sequence)
	}
	return done.Ended, err
}

// checkCancel tells the runner, once, that it is to stop, and leaves an attempt that
// ended otherwise.
func (at *attachment) checkCancel(ctx context.Context) error {
	pool := at.service.store.DB.Read()
	a, err := store.ReadAttempt(ctx, pool, at.attempt.BuildID, at.attempt.Number, "")
	if err != nil {
		return err
	}
	if a.Ended {
		return attemptOver(a)
	}
	b, err := store.ReadBuild(ctx, pool, at.attempt.BuildID, "")
	if err != nil || at.toldCancel || b.Cancel.Time.IsZero() {
		return err
	}
	at.toldCancel = true
	return at.stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Cancel{Cancel: &schedulerv1.Cancel{Message: b.Cancel.Message}}})
}
