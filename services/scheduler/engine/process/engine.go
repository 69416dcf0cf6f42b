// Package process runs builds as processes of this host, without containers: for
// laptops, the demo, and hosts that belong to the builds alone. A build runs as
// Forge's own user and can do what that user can.
//
// An attempt is a folder: its name says which, a lock that forgexec holds as long
// as it lives says whether it runs, and a state file that forgexec writes says
// which process that is. So nothing here depends on Forge having lived on: one
// that was killed and started anew finds all that runs.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// Config of an engine.
type Config struct {
	// Dir holds a folder for each attempt. Two engines must not share it at once.
	Dir string
	// Forgexec is the command line of forgexec.
	Forgexec []string
	// Environment is what every build has besides.
	Environment map[string]string
	// Log may be nil.
	Log *slog.Logger
}

// Engine runs forgexec as a process of this host.
type Engine struct {
	dir      string
	forgexec []string
	environ  []string
	log      *slog.Logger

	mu sync.Mutex
	// children of this process, to be reaped. They outlive it if need be, so
	// nobody waits for them.
	children map[int]bool
}

var _ engine.Engine = (*Engine)(nil)

// New makes the folder if it is not there.
func New(config Config) (*Engine, error) {
	if len(config.Forgexec) == 0 {
		return nil, errors.New("process engine: no command line for forgexec")
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("process engine: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("process engine: %w", err)
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{dir: dir, forgexec: config.Forgexec, log: log, children: map[int]bool{}}
	for name, value := range config.Environment {
		e.environ = append(e.environ, name+"="+value)
	}
	return e, nil
}

// Name is "process".
func (e *Engine) Name() string { return "process" }

// Start starts forgexec unless it was started for this attempt before.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) error {
	attempt, err := e.attempt(spec.Attempt)
	if err != nil {
		return err
	}
	if spec.Runner.URL == "" || spec.Runner.Token == "" {
		return fault.Newf(fault.Invalid, "attempt %s: the runner's URL and token are missing", spec.Attempt)
	}
	if len(spec.Sidecars) > 0 {
		return fault.Newf(fault.Invalid, "services (%s) run in containers, and this server has none: it runs FORGE_ENGINE=process", spec.Sidecars[0].Name)
	}
	if here := runtime.GOOS + "/" + runtime.GOARCH; spec.Platform != "" && spec.Platform != here {
		return fault.Newf(fault.Invalid, "it asks for platform %s, and this server runs commands on its own host, which is %s: it runs FORGE_ENGINE=process", spec.Platform, here)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reap()
	if err := attempt.make(); err != nil {
		return fmt.Errorf("start attempt %s: %w", spec.Attempt, err)
	}
	lock, err := attempt.lock()
	if errors.Is(err, errHeld) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start attempt %s: %w", spec.Attempt, err)
	}
	defer lock.Close() //nolint:errcheck // forgexec has it now
	if state, err := attempt.state(); err != nil || state.pid != 0 {
		return err // it has ended
	}
	for _, port := range spec.Ports {
		if port.Container != port.Host {
			spec.Sayf("process engine: port %d of the host does not lead to port %d: there is no container", port.Host, port.Container)
		}
	}
	if spec.Privileged || len(spec.Volumes) > 0 {
		spec.Sayf("process engine: privileged and volumes are ignored: there is no container")
	}
	pid, err := e.run(attempt, spec, lock)
	if err != nil {
		return fmt.Errorf("start attempt %s: %w", spec.Attempt, errors.Join(err, attempt.remove()))
	}
	e.children[pid] = true
	e.log.InfoContext(ctx, "started", "attempt", spec.Attempt, "build", spec.BuildID, "pid", pid)
	return nil
}

// run starts forgexec in a session of its own, with nothing of Forge's but PATH,
// the locale and the lock.
func (e *Engine) run(a attempt, spec engine.Spec, lock *os.File) (pid int, err error) {
	output, err := os.OpenFile(a.path(outputFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer output.Close()                                  //nolint:errcheck // forgexec has its own
	cmd := exec.Command(e.forgexec[0], e.forgexec[1:]...) //nolint:noctx // it outlives Forge
	cmd.Dir = string(a)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.Concat(e.environ, spec.Runner.Environ(spec.Runner.URL), []string{
		"PATH=" + os.Getenv("PATH"),
		"LANG=" + os.Getenv("LANG"),
		"HOME=" + a.path(homeFolder),
		"TMPDIR=" + a.path(temporaryFolder),
		a.marker(),
		"FORGE_RUNNER_STATE=" + a.path(stateFile),
		"FORGE_RUNNER_NOTICE=" + notice(spec),
	})
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

func notice(spec engine.Spec) string {
	if spec.Image == "" {
		return ""
	}
	return fmt.Sprintf("process engine: image %s is ignored; commands run on this host", spec.Image)
}

// Stop asks forgexec to end, kills it and whatever else the attempt has started,
// and removes its folder.
func (e *Engine) Stop(ctx context.Context, name string) error {
	attempt, err := e.attempt(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(string(attempt)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := e.end(ctx, attempt); err != nil {
		return fmt.Errorf("stop attempt %s: %w", name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reap()
	if err := attempt.remove(); err != nil {
		return fmt.Errorf("stop attempt %s: %w", name, err)
	}
	return nil
}

// List reads the folders.
func (e *Engine) List(context.Context) ([]engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reap()
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	var containers []engine.Container
	for _, entry := range entries {
		attempt, err := e.attempt(entry.Name())
		if err != nil {
			continue // not one of ours
		}
		container, err := attempt.inspect()
		if errors.Is(err, fs.ErrNotExist) {
			continue // not started, or just removed
		}
		if err != nil {
			return nil, fmt.Errorf("list attempts: %s: %w", entry.Name(), err)
		}
		containers = append(containers, container)
	}
	return containers, nil
}

// Tail reads the end of what forgexec wrote.
func (e *Engine) Tail(_ context.Context, name string) (string, error) {
	attempt, err := e.attempt(name)
	if err != nil {
		return "", err
	}
	text, err := attempt.lastOutput()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("output of attempt %s: %w", name, err)
	}
	return engine.LastLines(text), nil
}

// reap collects those of this process's children that have ended; e.mu is held.
func (e *Engine) reap() {
	for pid := range e.children {
		if ended, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); ended == pid || errors.Is(err, syscall.ECHILD) {
			delete(e.children, pid)
		}
	}
}

func (e *Engine) attempt(name string) (attempt, error) {
	if !attemptName().MatchString(name) {
		return "", fault.Newf(fault.Invalid, "attempt %q: a name is 1 to 40 characters out of a-z, 0-9 and -", name)
	}
	return attempt(filepath.Join(e.dir, name)), nil
}

// attemptName is as engine.Spec says.
var attemptName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,40}$`) })

// end returns when nothing of the attempt runs any more.
func (e *Engine) end(ctx context.Context, a attempt) error {
	// forgexec tells Forge what became of the step it stops, if it is quick.
	const polite, patience, pause = 2 * time.Second, 15 * time.Second, 5 * time.Millisecond
	begin := time.Now()
	asked := false
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		running, pid, err := e.look(a)
		if err != nil {
			return err
		}
		if !running {
			state, err := a.state()
			if err != nil || state.exitCode >= 0 { // it has ended by itself, its commands before it
				return err
			}
		}
		switch {
		case !running || time.Since(begin) > polite:
			killed, err := a.kill(pid)
			if err != nil || !running && killed == 0 {
				return err
			}
		case pid != 0 && !asked: // it says very soon which it is
			asked = true
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("after %v there are still processes (forgexec: %d)", patience, pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look reports whether forgexec runs, and as which process; 0 where it does not
// or has not said so yet.
func (e *Engine) look(a attempt) (running bool, pid int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reap()
	running, err = a.held()
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil || !running {
		return false, 0, err
	}
	state, err := a.state()
	return true, state.pid, err
}
