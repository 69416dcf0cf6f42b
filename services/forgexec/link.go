package forgexec

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	tokenKey = "forge-runner-token" // in the metadata
	// patience is for how long a build waits for a scheduler that is away.
	patience         = 24 * time.Hour
	firstPause       = 100 * time.Millisecond
	longestPause     = 3 * time.Second
	defaultHeartbeat = 5 * time.Second
	// farewell is how long the scheduler may take to close a stream whose last
	// report it has acknowledged.
	farewell = time.Second
)

type linkConfig struct {
	Dial              func() (*grpc.ClientConn, error)
	Token             string
	RunnerID, Version string
	Workspace         *workspace
	Log               *slog.Logger
}

// link is the connection to the scheduler, made again whenever it breaks.
type link struct {
	linkConfig
	window *window

	// What the scheduler gives, each once.
	// keptFor is how long the container is kept once the attempt has ended; set when run returns.
	keptFor time.Duration

	plan   chan *schedulerv1.Plan
	source chan *schedulerv1.Report // SourceUnpacked, or Ended instead

	hasPlan, hasSource atomic.Bool
	heartbeat          atomic.Int64 // a duration

	intake *intake // of run alone
}

func newLink(config linkConfig) *link {
	l := &link{
		linkConfig: config, window: newWindow(),
		plan: make(chan *schedulerv1.Plan, 1), source: make(chan *schedulerv1.Report, 1),
	}
	l.heartbeat.Store(int64(defaultHeartbeat))
	return l
}

// refused is the scheduler's last word.
type refused struct{ reason string }

func (r *refused) Error() string {
	return "the scheduler wants nothing more of this attempt: " + r.reason
}

// run keeps the connection until all is said and acknowledged. It stops the
// commands when they are cancelled, and when nobody will listen any more: that is
// its error, *refused where the scheduler said so.
func (l *link) run(ctx context.Context, stop context.CancelCauseFunc) (err error) {
	defer l.window.close()
	defer func() { l.intake.interrupt() }()
	defer func() {
		if err != nil {
			stop(&halt{message: err.Error(), atOnce: true})
		}
	}()
	heard := time.Now()
	pause := firstPause
	complained := map[string]bool{} // of what, since the scheduler was heard last
	for {
		welcomed, done, err := l.attach(ctx, stop)
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before everything was reported: %w", ctx.Err())
		}
		if code := status.Code(err); code == codes.FailedPrecondition || code == codes.Unauthenticated {
			return &refused{status.Convert(err).Message()}
		}
		if welcomed {
			heard, pause = time.Now(), firstPause
			clear(complained)
		}
		if time.Since(heard) > patience {
			return fmt.Errorf("no scheduler for %s: %w", short(patience), err)
		}
		if text, kind := plain(err); !complained[kind] {
			l.Log.WarnContext(ctx, "the scheduler is away, trying again", "error", text)
			complained[kind] = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // it only spreads runners
		}
		pause = min(2*pause, longestPause)
	}
}

// plain is an error without gRPC's words around it, and the same without numbers,
// which ports differ in from one try to the next.
func plain(err error) (text, kind string) {
	if err == nil {
		return "the stream ended", ""
	}
	text = status.Convert(err).Message()
	if _, dialing, found := strings.Cut(text, "Error while dialing: "); found {
		text = strings.TrimSuffix(dialing, `"`)
	}
	return text, strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}

// attach lives as long as one stream. done: everything is acknowledged.
func (l *link) attach(ctx context.Context, stop context.CancelCauseFunc) (welcomed, done bool, err error) {
	conn, err := l.Dial()
	if err != nil {
		return false, false, err
	}
	defer conn.Close() //nolint:errcheck // it has done its work, or failed at it
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, tokenKey, l.Token))
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	stream, err := schedulerv1.NewRunnerServiceClient(conn).Attach(ctx)
	if err != nil {
		return false, false, err
	}
	if err := stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Hello{Hello: &schedulerv1.Hello{
		RunnerId: l.RunnerID, Version: l.Version, HasPlan: l.hasPlan.Load(), HasSource: l.hasSource.Load(), MasksSecrets: true, HeedsJobs: true, TakesCheckout: true, TakesPacked: true,
		KeepsContent: true, KeepsContainer: true, SourceBegun: l.intake.begun(), ReadsReports: true, BuildsImages: true,
	}}}); err != nil {
		_, err = stream.Recv() // says why
		return false, false, err
	}
	sending, stopSending := context.WithCancel(ctx)
	defer stopSending()
	firstOfSource := true
	defer func() { l.intake.settle() }()
	defer l.window.bound(maxKept)
	for {
		message, err := stream.Recv()
		if err != nil {
			return welcomed, false, err
		}
		switch m := message.GetMessage().(type) {
		case *schedulerv1.AttachResponse_Welcome:
			if done, err = l.window.ack(m.Welcome.GetStoredSequence()); err != nil {
				return false, false, status.Error(codes.FailedPrecondition, err.Error())
			}
			l.keptFor = m.Welcome.GetKeptFor().AsDuration()
			l.window.bound(maxUnderWay)
			if !welcomed && !done {
				sender.Go(func() { l.send(sending, stream, m.Welcome.GetStoredSequence()) })
			}
			welcomed = true
		case *schedulerv1.AttachResponse_Ack:
			if done, err = l.window.ack(m.Ack.GetSequence()); err != nil {
				return welcomed, false, err
			}
			l.keptFor = m.Ack.GetKeptFor().AsDuration()
		case *schedulerv1.AttachResponse_Plan:
			l.planned(m.Plan)
		case *schedulerv1.AttachResponse_Source:
			if err := l.takeSource(m.Source, firstOfSource); err != nil {
				return welcomed, false, err
			}
			firstOfSource = false
		case *schedulerv1.AttachResponse_Cancel:
			stop(&halt{cause: schedulerv1.Ended_CAUSE_CANCELLED, message: m.Cancel.GetMessage()})
		}
		if done {
			defer time.AfterFunc(farewell, cancel).Stop()
			stopSending()
			sender.Wait()
			_ = stream.CloseSend()
			for err == nil {
				_, err = stream.Recv()
			}
			return true, true, nil
		}
	}
}

func (l *link) planned(plan *schedulerv1.Plan) {
	if l.hasPlan.Swap(true) {
		return
	}
	if every := plan.GetHeartbeat().AsDuration(); every > 0 {
		l.heartbeat.Store(int64(every))
	}
	l.plan <- plan
}

// send sends what comes after sequence, as it comes, until ctx ends or the stream
// breaks; attach hears why.
func (l *link) send(ctx context.Context, stream grpc.BidiStreamingClient[schedulerv1.AttachRequest, schedulerv1.AttachResponse], sequence int64) {
	idle := time.NewTimer(0)
	defer idle.Stop()
	for {
		due := l.window.after(sequence)
		if len(due) == 0 {
			idle.Reset(time.Duration(l.heartbeat.Load()))
			select {
			case <-ctx.Done():
				return
			case <-l.window.more:
			case <-idle.C:
				due = []*schedulerv1.Report{{Event: &schedulerv1.Report_Heartbeat{Heartbeat: &schedulerv1.Heartbeat{}}}}
			}
		}
		for _, report := range due {
			if stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: report}}) != nil {
				return
			}
			sequence = max(sequence, report.GetSequence())
		}
	}
}
