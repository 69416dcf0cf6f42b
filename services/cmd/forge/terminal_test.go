package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// soon is when what must happen has happened on the slowest machine.
const soon = time.Minute

// terminalForge is a Forge with a build whose container is kept. What is typed there goes
// to the test, and the test says what is printed.
type terminalForge struct {
	schedulerv1.UnimplementedBuildServiceServer
	schedulerv1.UnimplementedShellServiceServer

	address string
	server  *grpc.Server
	asked   chan *schedulerv1.OpenShellRequest
	inputs  chan *schedulerv1.ShellInput
	answers chan any // a part of a shell, or the error that ends its call
	left    chan struct{}

	mu      sync.Mutex
	refusal error                // of what is typed
	builds  []*schedulerv1.Build // those that wait and run
}

func newTerminalForge(t *testing.T) *terminalForge {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &terminalForge{
		address: lis.Addr().String(), server: grpc.NewServer(), asked: make(chan *schedulerv1.OpenShellRequest, 1),
		inputs: make(chan *schedulerv1.ShellInput, 100), answers: make(chan any, 100), left: make(chan struct{}, 1),
	}
	schedulerv1.RegisterBuildServiceServer(f.server, f)
	schedulerv1.RegisterShellServiceServer(f.server, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = f.server.Serve(lis) })
	t.Cleanup(func() { f.server.Stop(); serving.Wait() })
	return f
}

func (f *terminalForge) GetBuild(_ context.Context, req *schedulerv1.GetBuildRequest) (*schedulerv1.GetBuildResponse, error) {
	return &schedulerv1.GetBuildResponse{Build: &schedulerv1.Build{Id: req.GetBuildId()}}, nil
}

func (f *terminalForge) ListBuilds(context.Context, *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &schedulerv1.ListBuildsResponse{Builds: f.builds}, nil
}

func (f *terminalForge) OpenShell(req *schedulerv1.OpenShellRequest, stream schedulerv1.ShellService_OpenShellServer) error {
	f.asked <- req
	err := stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Opened_{Opened: &schedulerv1.OpenShellResponse_Opened{
		ShellId: "s1", KeptUntilTime: timestamppb.New(time.Now().Add(15 * time.Minute)),
	}}})
	for err == nil {
		select {
		case <-stream.Context().Done():
			f.left <- struct{}{}
			return stream.Context().Err()
		case next := <-f.answers:
			switch what := next.(type) {
			case error:
				return what
			case *schedulerv1.OpenShellResponse_Closed:
				return stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Closed_{Closed: what}})
			case string:
				err = stream.Send(&schedulerv1.OpenShellResponse{Message: &schedulerv1.OpenShellResponse_Output{Output: &schedulerv1.ShellOutput{Data: []byte(what)}}})
			}
		}
	}
	return err
}

func (f *terminalForge) SendToShell(_ context.Context, req *schedulerv1.SendToShellRequest) (*schedulerv1.SendToShellResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal == nil {
		f.inputs <- req.GetInput()
	}
	return &schedulerv1.SendToShellResponse{}, f.refusal
}

func (f *terminalForge) refuse(err *status.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusal = err.Err()
}

// input waits for the next input that fits.
func (f *terminalForge) input(t *testing.T, fits func(*schedulerv1.ShellInput) bool) *schedulerv1.ShellInput {
	t.Helper()
	late := time.NewTimer(soon)
	defer late.Stop()
	for {
		select {
		case input := <-f.inputs:
			if fits(input) {
				return input
			}
		case <-late.C:
			t.Fatal("no such input came")
		}
	}
}

// command is forge as it asks this Forge.
func (f *terminalForge) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := exec.LookPath("forge")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"FORGE_GRPC_ADDRESS=" + f.address, "FORGE_ADMIN_TOKEN=hush", "TERM=xterm", "TZ=UTC", "GORACE=atexit_sleep_ms=0"}
	return cmd
}

// tty is a terminal at which forge runs.
type tty struct {
	cmd              *exec.Cmd
	keyboard, screen *os.File
	before           *term.State
	ended            chan struct{}

	mu    sync.Mutex
	shown bytes.Buffer
}

// at starts forge at a terminal of 80 columns and 24 rows.
func (f *terminalForge) at(t *testing.T, args ...string) *tty {
	t.Helper()
	keyboard, screen, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &tty{cmd: f.command(t, args...), keyboard: keyboard, screen: screen, ended: make(chan struct{})}
	s.resize(t, 80, 24)
	s.before = s.state(t)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = screen, screen, screen
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		_ = s.cmd.Wait()
		close(s.ended)
	})
	reading.Go(func() {
		for data := make([]byte, 4<<10); ; {
			n, err := keyboard.Read(data)
			if err != nil { // nobody has the other end any more
				return
			}
			s.mu.Lock()
			s.shown.Write(data[:n])
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = screen.Close()
		reading.Wait()
		_ = keyboard.Close()
		if t.Failed() {
			t.Logf("shown: %q", s.text())
		}
	})
	return s
}

func (s *tty) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// shows waits until the terminal shows a text.
func (s *tty) shows(t *testing.T, text string) {
	t.Helper()
	kittest.Eventually(t, soon, func() error {
		if shown := s.text(); !strings.Contains(shown, text) {
			return fmt.Errorf("%q is not in %q", text, shown)
		}
		return nil
	})
}

func (s *tty) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

func (s *tty) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := pty.Setsize(s.keyboard, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

func (s *tty) state(t *testing.T) *term.State {
	t.Helper()
	state, err := term.GetState(int(s.screen.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// becomesRaw waits until keys reach forge as they are.
func (s *tty) becomesRaw(t *testing.T) {
	t.Helper()
	kittest.Eventually(t, soon, func() error {
		if *s.state(t) == *s.before {
			return fmt.Errorf("the terminal is as it was: %q", s.text())
		}
		return nil
	})
}

// ends waits for the end of forge, which leaves the terminal as it was.
func (s *tty) ends(t *testing.T, code int) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(soon):
		t.Fatal("it does not end")
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	if *s.state(t) != *s.before {
		t.Error("the terminal is not as it was before")
	}
}
