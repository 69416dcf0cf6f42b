package forgexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const (
	testToken = "token-of-one-attempt"
	soon      = time.Minute // what must happen happens at once; machines are slow
)

// The test binary is forgexec itself when this is set: forgexec reaps every child
// of its process, so it needs one of its own.
const actAsForgexec = "TEST_ACT_AS_FORGEXEC"

func TestMain(m *testing.M) {
	kittest.MaybeTool()
	if os.Getenv(actAsForgexec) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	code := Main(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	// A connection of who has sent more than was read is closed half a second later.
	lingers := goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")
	if err := goleak.Find(lingers, goleak.IgnoreTopFunction("os/signal.signal_recv"), goleak.IgnoreTopFunction("os/signal.loop")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 99
	}
	os.Exit(code)
}

// fakeScheduler is the other end: it keeps what was reported, like the real one.
type fakeScheduler struct {
	schedulerv1.UnimplementedRunnerServiceServer

	plan   *schedulerv1.Plan
	source []byte
	// sourceError comes in place of a source.
	sourceError string
	// breakSource cuts the first stream in the middle of the source.
	breakSource bool
	// goOn is what comes after a source that broke off, and from where on; nil: all of
	// the source anew, as from a scheduler that cannot go on.
	goOn func(*schedulerv1.SourceBegun) (source []byte, offset int)
	// cutEvery cuts a stream after so many reports, none of them acknowledged.
	cutEvery int
	// age is how old a connection gets before its caller is asked to make another; 0: any.
	age time.Duration

	contents fakeContents
	kept     keptContainer
	image    func(begin *schedulerv1.BuildImageRequest_Begin, stream imageServer) error
	socket   string
	mu       sync.Mutex
	server   *grpc.Server
	served   sync.WaitGroup

	hellos     []*schedulerv1.Hello
	reports    []*schedulerv1.Report
	wrong      []string // breaches of the protocol
	heartbeats int
	refusal    error
	cancelled  chan string
}

func newScheduler(t testing.TB, steps ...string) *fakeScheduler {
	t.Helper()
	dir, err := os.MkdirTemp("", "forge") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeScheduler{
		plan: &schedulerv1.Plan{
			BuildId: "b1", Attempt: 1,
			Timeout: durationpb.New(time.Minute), Grace: durationpb.New(soon), Heartbeat: durationpb.New(20 * time.Millisecond),
		},
		source:    tarball(t, folder("top/"), file("top/file", "content\n")),
		socket:    filepath.Join(dir, "runner.sock"),
		cancelled: make(chan string, 1),
	}
	for i, run := range steps {
		s.plan.Steps = append(s.plan.Steps, &schedulerv1.PlannedStep{Number: int32(i + 1), Name: run, Run: run})
	}
	t.Cleanup(func() {
		s.kill()
		os.RemoveAll(dir)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, wrong := range s.wrong {
			t.Error(wrong)
		}
	})
	return s
}

func (s *fakeScheduler) start(t testing.TB) {
	t.Helper()
	os.Remove(s.socket)
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: s.age}))
	schedulerv1.RegisterRunnerServiceServer(server, s)
	s.server = server
	s.served.Go(func() { _ = server.Serve(listener) })
}

// kill, and start again, are a restart. It breaks every stream and closes the socket.
func (s *fakeScheduler) kill() {
	if s.server != nil {
		s.server.Stop()
	}
	s.served.Wait()
}

func (s *fakeScheduler) Attach(stream grpc.BidiStreamingServer[schedulerv1.AttachRequest, schedulerv1.AttachResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	if got := md.Get(tokenKey); len(got) != 1 || got[0] != testToken {
		return status.Error(codes.Unauthenticated, "no such attempt")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	s.mu.Lock()
	s.hellos = append(s.hellos, hello)
	stored, attached, refusal := int64(len(s.reports)), len(s.hellos), s.refusal
	s.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	if err := stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Welcome{
		Welcome: &schedulerv1.Welcome{StoredSequence: stored},
	}}); err != nil {
		return err
	}
	if !hello.GetHasPlan() {
		if err := stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Plan{Plan: s.plan}}); err != nil {
			return err
		}
	}
	if !hello.GetHasSource() {
		send := func() error { return s.sendSource(stream, attached == 1 && s.breakSource) }
		if s.goOn != nil && attached > 1 {
			send = func() error { return s.sendRest(stream, hello.GetSourceBegun()) }
		}
		if err := send(); err != nil {
			return err
		}
	}
	received := make(chan *schedulerv1.Report)
	failed := make(chan error, 1)
	s.served.Go(func() { // it ends once this handler has returned
		for {
			message, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case received <- message.GetReport():
			case <-stream.Context().Done():
				failed <- stream.Context().Err()
				return
			}
		}
	})
	for unacked := 0; ; {
		select {
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case message := <-s.cancelled:
			if err := stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Cancel{
				Cancel: &schedulerv1.Cancel{Message: message},
			}}); err != nil {
				return err
			}
		case report := <-received:
			sequence, err := s.store(report)
			if err != nil {
				return err
			}
			if unacked++; s.cutEvery > 0 {
				if unacked == s.cutEvery && report.GetEnded() == nil {
					return status.Error(codes.Unavailable, "cut")
				}
				if report.GetEnded() == nil {
					continue
				}
			}
			if sequence > 0 {
				if err := stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Ack{
					Ack: &schedulerv1.Ack{Sequence: sequence, KeptFor: s.kept.from(report)},
				}}); err != nil {
					return err
				}
			}
		}
	}
}

func (s *fakeScheduler) sendSource(stream grpc.BidiStreamingServer[schedulerv1.AttachRequest, schedulerv1.AttachResponse], broken bool) error {
	send := func(chunk *schedulerv1.SourceChunk) error {
		return stream.Send(&schedulerv1.AttachResponse{Message: &schedulerv1.AttachResponse_Source{Source: chunk}})
	}
	half := len(s.source) / 2
	if err := send(&schedulerv1.SourceChunk{Data: s.source[:half]}); err != nil {
		return err
	}
	if broken {
		return status.Error(codes.Unavailable, "cut")
	}
	if s.sourceError != "" {
		return send(&schedulerv1.SourceChunk{Error: s.sourceError})
	}
	return send(&schedulerv1.SourceChunk{Data: s.source[half:], Last: true})
}

// store keeps a report and returns the last one kept; 0 for a heartbeat.
func (s *fakeScheduler) store(report *schedulerv1.Report) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal != nil {
		return 0, s.refusal
	}
	if report.GetHeartbeat() != nil {
		s.heartbeats++
		return 0, nil
	}
	if next := int64(len(s.reports)) + 1; report.GetSequence() != next {
		s.wrong = append(s.wrong, fmt.Sprintf("report %d came where %d was due", report.GetSequence(), next))
	}
	if len(report.GetOutput().GetData()) > 64<<10 {
		s.wrong = append(s.wrong, "a chunk of more than 64 KiB")
	}
	if report.GetTime() == nil {
		s.wrong = append(s.wrong, fmt.Sprintf("report %d has no time", report.GetSequence()))
	}
	s.reports = append(s.reports, report)
	return report.GetSequence(), nil
}

func (s *fakeScheduler) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
}

// story is what was reported, in a line per report; output of one step in one.
func (s *fakeScheduler) story() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	var output strings.Builder
	say := func(format string, args ...any) {
		if output.Len() > 0 {
			lines = append(lines, fmt.Sprintf("%q", output.String()))
			output.Reset()
		}
		lines = append(lines, fmt.Sprintf(format, args...))
	}
	for _, report := range s.reports {
		switch e := report.GetEvent().(type) {
		case *schedulerv1.Report_SourceUnpacked:
			say("source %d entries", e.SourceUnpacked.GetEntries())
		case *schedulerv1.Report_StepStarted:
			say("start %d", e.StepStarted.GetNumber())
		case *schedulerv1.Report_Output:
			output.Write(e.Output.GetData())
		case *schedulerv1.Report_StepEnded:
			stopped := ""
			if e.StepEnded.GetStopped() {
				stopped = " stopped"
			}
			say("end %d exit %d%s", e.StepEnded.GetNumber(), e.StepEnded.GetExitCode(), stopped)
		case *schedulerv1.Report_Outputs:
			say("outputs %q", e.Outputs.GetValues())
		case *schedulerv1.Report_Spans:
			say("%s", toldSpans(e.Spans))
		case *schedulerv1.Report_Ended:
			say("%s", strings.TrimSpace(strings.TrimPrefix(e.Ended.GetCause().String(), "CAUSE_")+" "+e.Ended.GetMessage()))
		}
	}
	return strings.Join(lines, "\n")
}

func (s *fakeScheduler) output() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var output bytes.Buffer
	for _, report := range s.reports {
		output.Write(report.GetOutput().GetData())
	}
	return output.Bytes()
}

// forgexec starts one for this scheduler, and the scheduler if it never ran.
func (s *fakeScheduler) forgexec(t testing.TB, env ...string) *forgexec {
	t.Helper()
	return s.forgexecWith(t, nil, env...)
}

// forgexecWith starts one that inherits a file as descriptor 3.
func (s *fakeScheduler) forgexecWith(t testing.TB, inherited *os.File, env ...string) *forgexec {
	t.Helper()
	if s.server == nil {
		s.start(t)
	}
	workspace := filepath.Join(t.TempDir(), "workspace")
	return startForgexec(t, inherited, nil, append([]string{
		"FORGE_RUNNER_URL=unix://" + s.socket, "FORGE_RUNNER_TOKEN=" + testToken, "FORGE_WORKSPACE=" + workspace,
	}, env...)...)
}

// forgexec is a process.
type forgexec struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	exited         chan int
}

func startForgexec(t testing.TB, inherited *os.File, args []string, env ...string) *forgexec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &forgexec{cmd: exec.Command(self, args...), exited: make(chan int, 1)}
	f.cmd.Env = append([]string{actAsForgexec + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	f.cmd.Stdout, f.cmd.Stderr = &f.stdout, &f.stderr
	if inherited != nil {
		f.cmd.ExtraFiles = []*os.File{inherited}
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = f.cmd.Wait()
		f.exited <- f.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		<-f.exited
	})
	return f
}

// wantStory compares once forgexec has reported the end and is gone.
func (s *fakeScheduler) wantStory(t *testing.T, f *forgexec, want ...string) {
	t.Helper()
	f.wantExit(t, exitReported)
	if got := s.story(); got != strings.Join(want, "\n") {
		t.Errorf("reported:\n%s\nwant:\n%s\nforgexec said:\n%s", got, strings.Join(want, "\n"), f.stderr.String())
	}
}

// awaitOutput waits until the steps have printed this.
func (s *fakeScheduler) awaitOutput(t *testing.T, text string) {
	t.Helper()
	kittest.Eventually(t, soon, func() error {
		if got := s.output(); !bytes.Contains(got, []byte(text)) {
			return fmt.Errorf("output is %q, without %q", got, text)
		}
		return nil
	})
}
