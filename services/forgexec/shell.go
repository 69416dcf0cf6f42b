package forgexec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// exitNotFound is what shells end with where there is no such command.
	exitNotFound = 127
	// afterEnd is how long the output may stay open after the command of a shell has ended.
	afterEnd = time.Second
	// mostInputs is how many the scheduler sends before it hears that one was handed on.
	mostInputs = 8
)

// shell is a command with a terminal, or with pipes, whose other end is a person's.
type shell struct {
	*keeper
	stream  shellStream
	opening *schedulerv1.ShellResponse_Opening
	inputs  chan *schedulerv1.ShellInput

	mu sync.Mutex // of sending
}

// ends are the files of a command, and what this process reads and writes of them.
type ends struct {
	command  command
	output   []*os.File // the second is standard error
	input    *os.File
	terminal *os.File // nil where there is none
}

func (e *ends) closeCommand() {
	for _, file := range []*os.File{e.command.input, e.command.output, e.command.problems} {
		if file != nil {
			_ = file.Close() // the command has its own
		}
	}
}

func (e *ends) close() {
	_ = e.input.Close()
	for _, file := range e.output {
		_ = file.Close()
	}
}

// run returns how the command has ended, or why it was not started.
func (s *shell) run(ctx context.Context) (code int32, problem string) {
	env := joined(s.remains.env, map[string]string{"FORGE_SHELL": "true"}, s.terminal(), s.opening.GetSecrets())
	argv, err := s.argv(variables(env)["PATH"])
	if err != nil {
		return exitNotFound, err.Error()
	}
	all, err := s.connect()
	if err != nil {
		return exitNotFound, fmt.Sprintf("no shell can be started: %v", err)
	}
	all.command.argv, all.command.env, all.command.dir = argv, env, s.remains.dir
	pid, ended, err := s.processes.start(all.command)
	all.closeCommand()
	defer all.close()
	if err != nil {
		return exitNotFound, fmt.Sprintf("no shell can be started: %v", err)
	}

	var carrying sync.WaitGroup
	var pumps []*pump
	for n, file := range all.output {
		p := &pump{r: file, emit: func(data []byte) { s.print(data, n > 0) }}
		pumps = append(pumps, p)
		carrying.Go(func() { p.run() })
	}
	typing, enough := context.WithCancel(ctx)
	var hands sync.WaitGroup
	hands.Go(func() { s.handOn(typing, pid, all) })
	var status syscall.WaitStatus
	until := afterEnd
	select {
	case status = <-ended:
	case <-ctx.Done(): // nobody is there any more
		signalGroup(pid, syscall.SIGHUP)
		waitGroup(pid, time.Now().Add(afterEnd))
		signalGroup(pid, syscall.SIGKILL)
		status, until = <-ended, 0
	}
	for _, p := range pumps {
		p.finish(time.Now().Add(until))
	}
	carrying.Wait()
	enough()
	_ = all.input.SetWriteDeadline(time.Now()) // of who writes to what nobody reads any more
	hands.Wait()
	return int32(exitCode(status)), "" //nolint:gosec // 0 to 255
}

// terminal are the variables by which programs know a terminal.
func (s *shell) terminal() map[string]string {
	if s.opening.GetTerminal() == nil {
		return nil
	}
	return map[string]string{"TERM": s.opening.GetTerminal().GetType()}
}

// argv is what is run: a shell where nothing is named, bash before sh.
func (s *shell) argv(path string) ([]string, error) {
	words := s.opening.GetCommand()
	if len(words) > 0 {
		if strings.Contains(words[0], "/") {
			return words, nil
		}
		for _, folder := range filepath.SplitList(path) {
			if found, err := exec.LookPath(filepath.Join(folder, words[0])); err == nil && filepath.IsAbs(found) {
				return append([]string{found}, words[1:]...), nil
			}
		}
		return nil, fmt.Errorf("there is no %s in the PATH of the container", words[0])
	}
	for _, kind := range []configv1.Shell{configv1.Shell_SHELL_BASH, configv1.Shell_SHELL_SH} {
		if found, err := shellOf(kind, path); err == nil {
			return found[:1], nil
		}
	}
	return nil, errors.New("the container has no shell: there is no sh in /bin or PATH")
}

// connect makes the files of a command.
func (s *shell) connect() (*ends, error) {
	if size := s.opening.GetTerminal(); size != nil {
		return openTerminal(size)
	}
	var all ends
	var err error
	pipe := func(ours, theirs **os.File, toCommand bool) {
		if err != nil {
			return
		}
		var r, w *os.File
		if r, w, err = os.Pipe(); toCommand {
			r, w = w, r
		}
		*ours, *theirs = r, w
	}
	all.output = make([]*os.File, 2)
	pipe(&all.input, &all.command.input, true)
	pipe(&all.output[0], &all.command.output, false)
	pipe(&all.output[1], &all.command.problems, false)
	return &all, err
}

// openTerminal makes a terminal of a size.
func openTerminal(size *schedulerv1.ShellTerminal) (*ends, error) {
	opened, theirs, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer opened.Close() //nolint:errcheck // the copy is used
	// Package pty leaves a file that a read blocks in until there is something.
	fd, err := unix.FcntlInt(opened.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	ours := os.NewFile(uintptr(fd), opened.Name())
	resize(ours, size)
	return &ends{command: command{input: theirs, output: theirs, terminal: true}, input: ours, output: []*os.File{ours}, terminal: ours}, nil
}

// resize tells a terminal how large it is.
func resize(terminal *os.File, size *schedulerv1.ShellTerminal) {
	within := func(n int32) uint16 { return uint16(min(max(n, 1), 10000)) }
	raw, err := terminal.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: within(size.GetRows()), Col: within(size.GetColumns())})
	})
}

// print sends what was printed. It blocks while nobody reads, and so does the command.
func (s *shell) print(data []byte, isError bool) {
	output := &schedulerv1.ShellOutput{Data: data, Error: isError}
	_ = s.send(&schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Output{Output: output}}) // hear learns of it, too
}

func (s *shell) send(message *schedulerv1.ShellRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(message)
}

// hear takes what a person types, until the stream ends.
func (s *shell) hear(ctx context.Context) {
	for {
		message, err := s.stream.Recv()
		if err != nil {
			return
		}
		select {
		case s.inputs <- message.GetInput():
		case <-ctx.Done():
			return
		default: // more than may be under way
			return
		}
	}
}

// handOn gives the command what a person types.
func (s *shell) handOn(ctx context.Context, pid int, all *ends) {
	for taken := int64(1); ; taken++ {
		var input *schedulerv1.ShellInput
		select {
		case <-ctx.Done():
			return
		case input = <-s.inputs:
		}
		if size := input.GetResized(); size != nil && all.terminal != nil {
			resize(all.terminal, size)
		}
		if input.GetSignal() > 0 {
			signalGroup(pid, syscall.Signal(input.GetSignal()))
		}
		_, _ = all.input.Write(input.GetData()) // it may have ended, or read no more
		if input.GetEnd() && all.terminal == nil {
			_ = all.input.Close()
		}
		if s.send(&schedulerv1.ShellRequest{Message: &schedulerv1.ShellRequest_Taken{Taken: taken}}) != nil {
			return
		}
	}
}
