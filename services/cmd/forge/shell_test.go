package main

import (
	"bytes"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// The keys of a terminal go to the container, all of them, and so does its size.
func TestAShellHasTheTerminal(t *testing.T) {
	t.Parallel()
	f := newTerminalForge(t)
	s := f.at(t, "shell", "b1")
	if asked := <-f.asked; asked.GetBuildId() != "b1" || asked.GetTerminal().GetColumns() != 80 || asked.GetTerminal().GetRows() != 24 || asked.GetTerminal().GetType() != "xterm" {
		t.Errorf("asked for %v", asked)
	}
	s.shows(t, "without the job's secrets")
	s.becomesRaw(t)
	s.resize(t, 132, 50)
	size := f.input(t, func(i *schedulerv1.ShellInput) bool { return i.GetResized() != nil }).GetResized()
	if size.GetColumns() != 132 || size.GetRows() != 50 {
		t.Errorf("resized to %v", size)
	}
	for _, keys := range []string{"\x03", "\x1a", "\x04", "ls\r"} {
		s.types(t, keys)
		var got []byte
		for len(got) < len(keys) {
			got = append(got, f.input(t, func(i *schedulerv1.ShellInput) bool { return len(i.GetData()) > 0 }).GetData()...)
		}
		if string(got) != keys {
			t.Errorf("%q arrives as %q", keys, got)
		}
	}
	f.answers <- "" // it goes on
	f.answers <- "one\r\ntwo"
	s.shows(t, "one\r\ntwo")
	f.answers <- &schedulerv1.OpenShellResponse_Closed{ExitCode: 7}
	s.ends(t, 7)
}

// However a shell ends, it is said why, and the terminal is as it was.
func TestAShellSaysWhyItIsOver(t *testing.T) {
	t.Parallel()
	signalled := func(sig syscall.Signal) func(*testing.T, *terminalForge, *tty) {
		return func(t *testing.T, f *terminalForge, s *tty) {
			if err := s.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			<-f.left // and the container's side is closed
		}
	}
	answered := func(answer any) func(*testing.T, *terminalForge, *tty) {
		return func(_ *testing.T, f *terminalForge, _ *tty) { f.answers <- answer }
	}
	const another = ", and forge shell b1 opens another shell in it\r\n"
	for name, c := range map[string]struct {
		end  func(*testing.T, *terminalForge, *tty)
		code int
		says []string
	}{
		"it ends":         {answered(&schedulerv1.OpenShellResponse_Closed{}), exitFine, nil},
		"it is idle":      {answered(&schedulerv1.OpenShellResponse_Closed{ExitCode: -1, Problem: "nothing was typed or printed for 15m0s"}), exitFailed, []string{"\r\nforge: the shell was closed: nothing was typed or printed for 15m0s\r\n"}},
		"its time":        {answered(&schedulerv1.OpenShellResponse_Closed{ExitCode: -1, Problem: "its container is not kept any more"}), exitFailed, []string{"\r\nforge: the shell was closed: its container is not kept any more\r\n"}},
		"access is lost":  {answered(status.Error(codes.PermissionDenied, "you may not write to acme/shop")), exitRefused, []string{"\r\nforge: the shell is lost: you may not write to acme/shop\r\n"}},
		"Forge stops":     {answered(status.Error(codes.Unavailable, "the scheduler stops: open a new shell")), exitNobody, []string{"\r\nforge: the shell is lost: the scheduler stops", another}},
		"its call is cut": {answered(status.Error(codes.Canceled, "context canceled")), exitNobody, []string{"\r\nforge: the shell is lost: ", another}},
		"Forge is gone":   {func(_ *testing.T, f *terminalForge, _ *tty) { f.server.Stop() }, exitNobody, []string{"\r\nforge: the shell is lost: ", "; the container is kept until ", another}},
		"nothing arrives": {func(t *testing.T, f *terminalForge, s *tty) {
			f.refuse(status.New(codes.PermissionDenied, "you may not write to acme/shop"))
			s.types(t, "ls\r")
		}, exitRefused, []string{"\r\nforge: what is typed does not arrive: you may not write to acme/shop\r\n"}},
		"SIGTERM": {signalled(syscall.SIGTERM), exitInterrupted, []string{"\r\nforge: interrupted\r\n"}},
		"SIGHUP":  {signalled(syscall.SIGHUP), exitInterrupted, []string{"\r\nforge: interrupted\r\n"}},
		"SIGINT":  {signalled(syscall.SIGINT), exitInterrupted, []string{"\r\nforge: interrupted\r\n"}},
		"SIGQUIT": {signalled(syscall.SIGQUIT), exitInterrupted, []string{"\r\nforge: interrupted\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newTerminalForge(t)
			s := f.at(t, "shell", "b1")
			s.becomesRaw(t)
			f.answers <- "$ "
			s.shows(t, "$ ")
			c.end(t, f, s)
			s.ends(t, c.code)
			for _, text := range c.says {
				s.shows(t, text)
			}
		})
	}
}

// Without a terminal the first signal goes to the command. The second ends this side,
// though what was typed before does not arrive, and nobody reads what is printed.
func TestASecondSignalHangsUp(t *testing.T) {
	t.Parallel()
	f := newTerminalForge(t)
	cmd := f.command(t, "shell", "b1", "--", "sleep", "1000")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	unread, full, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	defer full.Close()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if asked := <-f.asked; asked.GetTerminal() != nil || len(asked.GetCommand()) != 2 {
		t.Errorf("asked for %v", asked)
	}
	if _, err := input.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	f.input(t, func(i *schedulerv1.ShellInput) bool { return string(i.GetData()) == "typed" })
	signal := func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	f.input(t, func(i *schedulerv1.ShellInput) bool { return i.GetSignal() == int32(syscall.SIGINT) })
	f.refuse(status.New(codes.ResourceExhausted, "what was typed before has not been read yet: send it again"))
	if _, err := input.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		f.answers <- string(bytes.Repeat([]byte("x"), 32<<10))
	}
	signal()
	select {
	case <-ended:
	case <-time.After(soon):
		t.Fatal("it does not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || said.String() != "forge: interrupted\n" {
		t.Errorf("exit code %d: %q", code, said.String())
	}
}

// Whoever has started it is gone: the command is not told first.
func TestAShellWithoutATerminalIsHungUp(t *testing.T) {
	t.Parallel()
	// Where the tests are run by nohup, the command would not hear of it either.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	f := newTerminalForge(t)
	cmd := f.command(t, "shell", "b1", "--", "sleep", "1000")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	<-f.asked
	if _, err := input.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	f.input(t, func(i *schedulerv1.ShellInput) bool { return string(i.GetData()) == "typed" })
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(soon):
		t.Fatal("it does not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || said.String() != "forge: interrupted\n" {
		t.Errorf("exit code %d: %q", code, said.String())
	}
}
