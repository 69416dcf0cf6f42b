package forgexec

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// processes starts commands and reaps every child, also those that were left to
// this process because their parents are gone. Package os must not wait for
// children meanwhile, hence syscall.
type processes struct {
	mu      sync.Mutex
	waiting map[int]chan<- syscall.WaitStatus
	born    chan os.Signal
	ended   sync.WaitGroup
}

func newProcesses() *processes {
	p := &processes{waiting: map[int]chan<- syscall.WaitStatus{}, born: make(chan os.Signal, 1)}
	signal.Notify(p.born, syscall.SIGCHLD)
	p.ended.Go(func() {
		for range p.born {
			p.reap()
		}
	})
	return p
}

// stop ends the reaping. It does not end processes.
func (p *processes) stop() {
	signal.Stop(p.born)
	close(p.born)
	p.ended.Wait()
}

// command is a process with a session and a group of its own.
type command struct {
	argv     []string // argv[0] is a path
	env      []string
	dir      string
	output   *os.File
	input    *os.File // nil: nothing
	problems *os.File // nil: the output
	terminal bool     // the input is its controlling terminal
}

// start returns the process, and a channel that gets its end.
func (p *processes) start(c command) (pid int, ended <-chan syscall.WaitStatus, err error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer nothing.Close() //nolint:errcheck // it was not written to
	files := []uintptr{nothing.Fd(), c.output.Fd(), c.output.Fd()}
	if c.input != nil {
		files[0] = c.input.Fd()
	}
	if c.problems != nil {
		files[2] = c.problems.Fd()
	}
	status := make(chan syscall.WaitStatus, 1)
	p.mu.Lock() // so that it is not reaped before it is known
	defer p.mu.Unlock()
	pid, err = syscall.ForkExec(c.argv[0], c.argv, &syscall.ProcAttr{
		Dir: c.dir, Env: c.env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: c.terminal},
	})
	if err != nil {
		return 0, nil, &os.PathError{Op: "start", Path: c.argv[0], Err: err}
	}
	p.waiting[pid] = status
	return pid, status, nil
}

// reap collects all that have ended, and reports whether children are left.
func (p *processes) reap() (left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		case p.waiting[pid] != nil:
			p.waiting[pid] <- status
			delete(p.waiting, pid)
		}
	}
}

// killRest kills what the steps have left behind in other sessions, and waits for
// its end. It gives up on what even SIGKILL does not end within a few seconds.
func (p *processes) killRest() {
	const patience, pause = 5 * time.Second, 5 * time.Millisecond
	for end := time.Now().Add(patience); p.reap() && time.Now().Before(end); time.Sleep(pause) {
		for _, pid := range children() { // theirs become ours
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// signalGroup reports whether there was anyone in the group to hear it.
func signalGroup(group int, sig syscall.Signal) bool {
	return !errors.Is(syscall.Kill(-group, sig), syscall.ESRCH)
}

// waitGroup returns when the group is empty or the time has come.
func waitGroup(group int, until time.Time) {
	const pause = 10 * time.Millisecond
	for signalGroup(group, 0) && time.Now().Before(until) {
		time.Sleep(pause)
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// inherited is how many descriptors are looked at.
const inherited = 256

// closeOnExec keeps from commands what this process has inherited: a descriptor
// may be an engine's lock.
func closeOnExec() {
	for fd := 3; fd < inherited; fd++ {
		syscall.CloseOnExec(fd)
	}
}
