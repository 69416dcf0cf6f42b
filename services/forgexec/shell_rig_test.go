package forgexec

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// keptContainer is what a scheduler knows of the container that it has kept.
type keptContainer struct {
	long time.Duration // from the end of the attempt on; 0: it is not kept

	mu     sync.Mutex
	until  time.Time
	over   bool // somebody has it removed
	shells []*openedShell
	news   chan struct{} // there is another shell, or it is over
}

// from is for how long the container is kept from a report on.
func (k *keptContainer) from(report *schedulerv1.Report) *durationpb.Duration {
	if k.long == 0 || report.GetEnded() == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.news = time.Now().Add(k.long), make(chan struct{}, 1)
	return durationpb.New(k.long)
}

// remove has the container not kept any more.
func (k *keptContainer) remove() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.tell()
}

// tell has Keep look again.
func (k *keptContainer) tell() {
	select {
	case k.news <- struct{}{}:
	default: // it is about to
	}
}

func (k *keptContainer) state() (told *schedulerv1.KeepResponse, over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	told = &schedulerv1.KeepResponse{Left: durationpb.New(time.Until(k.until))}
	for _, one := range k.shells {
		told.ShellIds = append(told.ShellIds, one.id)
	}
	return told, k.over
}

// Keep implements schedulerv1.RunnerServiceServer.
func (s *fakeScheduler) Keep(_ *schedulerv1.KeepRequest, stream grpc.ServerStreamingServer[schedulerv1.KeepResponse]) error {
	for {
		told, over := s.kept.state()
		if over {
			return status.Error(codes.FailedPrecondition, "it is not kept any more")
		}
		if err := stream.Send(told); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.kept.news:
		}
	}
}

// Shell implements schedulerv1.RunnerServiceServer.
func (s *fakeScheduler) Shell(stream grpc.BidiStreamingServer[schedulerv1.ShellRequest, schedulerv1.ShellResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	var one *openedShell
	s.kept.mu.Lock()
	for _, some := range s.kept.shells {
		if some.id == first.GetBegin().GetShellId() {
			one = some
		}
	}
	s.kept.mu.Unlock()
	if err := stream.Send(&schedulerv1.ShellResponse{Message: &schedulerv1.ShellResponse_Opening_{Opening: one.opening}}); err != nil {
		return err
	}
	s.served.Go(func() { one.hear(stream) }) // it ends once this handler has returned
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-one.left:
			return status.Error(codes.Aborted, "nobody is there any more")
		case <-one.over:
			return nil
		case input := <-one.inputs:
			if err := stream.Send(&schedulerv1.ShellResponse{Message: &schedulerv1.ShellResponse_Input{Input: input}}); err != nil {
				return err
			}
		}
	}
}

// openedShell is a shell as whoever has opened it has it.
type openedShell struct {
	id      string
	opening *schedulerv1.ShellResponse_Opening
	inputs  chan *schedulerv1.ShellInput
	reads   chan struct{} // closed once what is printed is read
	left    chan struct{} // closed once nobody is there any more
	over    chan struct{} // closed once it has ended

	mu      sync.Mutex
	printed strings.Builder
	exited  *schedulerv1.ShellRequest_Exited
}

func (o *openedShell) hear(stream grpc.BidiStreamingServer[schedulerv1.ShellRequest, schedulerv1.ShellResponse]) {
	select {
	case <-o.reads:
	case <-stream.Context().Done():
		return
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.printed.Write(message.GetOutput().GetData())
		o.exited = message.GetExited()
		o.mu.Unlock()
		if message.GetExited() != nil {
			close(o.over)
			return
		}
	}
}

// opens asks for a shell that is read at once, or once reads is closed.
func (s *fakeScheduler) opens(t *testing.T, opening *schedulerv1.ShellResponse_Opening, read bool) *openedShell {
	t.Helper()
	o := &openedShell{opening: opening, inputs: make(chan *schedulerv1.ShellInput, mostInputs), reads: make(chan struct{}), left: make(chan struct{}), over: make(chan struct{})}
	if read {
		close(o.reads)
	}
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	o.id = fmt.Sprintf("shell-%d", len(s.kept.shells)+1)
	s.kept.shells = append(s.kept.shells, o)
	s.kept.tell()
	return o
}

// keeps starts a forgexec whose steps fail, and waits until its container is kept.
func (s *fakeScheduler) keeps(t *testing.T, long time.Duration) *forgexec {
	t.Helper()
	s.kept.long = long
	f := s.forgexec(t)
	kittest.Eventually(t, soon, func() error {
		s.kept.mu.Lock()
		defer s.kept.mu.Unlock()
		if s.kept.until.IsZero() {
			return errors.New("its attempt has not ended")
		}
		return nil
	})
	return f
}

func running(command ...string) *schedulerv1.ShellResponse_Opening {
	return &schedulerv1.ShellResponse_Opening{Command: command}
}

func (o *openedShell) text() (printed string, exited *schedulerv1.ShellRequest_Exited) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.printed.String(), o.exited
}

func (o *openedShell) types(text string) { o.inputs <- &schedulerv1.ShellInput{Data: []byte(text)} }

// prints waits until so much was printed that holds has nothing to say.
func (o *openedShell) prints(t *testing.T, holds func(printed string) bool) string {
	t.Helper()
	var printed string
	kittest.Eventually(t, soon, func() error {
		if printed, _ = o.text(); !holds(printed) {
			return fmt.Errorf("printed %q", printed)
		}
		return nil
	})
	return printed
}

func (o *openedShell) says(t *testing.T, text string) {
	t.Helper()
	o.prints(t, func(printed string) bool { return strings.Contains(printed, text) })
}

// ends waits for the end of a shell, and returns what it printed.
func (o *openedShell) ends(t *testing.T, code int32) string {
	t.Helper()
	select {
	case <-o.over:
	case <-time.After(soon):
		printed, _ := o.text()
		t.Fatalf("it does not end: %q", printed)
	}
	printed, exited := o.text()
	if exited.GetExitCode() != code || exited.GetProblem() != "" {
		t.Errorf("ends with %v, want %d: %q", exited, code, printed)
	}
	return printed
}
