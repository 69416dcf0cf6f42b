package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

// What the folder of an attempt holds.
const (
	lockFile        = "lock"
	stateFile       = "state"  // written by forgexec
	outputFile      = "output" // what forgexec itself has to say
	workspaceFolder = "workspace"
	homeFolder      = "home"
	temporaryFolder = "tmp"
)

// attempt is the folder of one.
type attempt string

func (a attempt) path(name string) string { return filepath.Join(string(a), name) }

// marker is in the environment of each process of the attempt.
func (a attempt) marker() string { return "FORGE_WORKSPACE=" + a.path(workspaceFolder) }

func (a attempt) make() error {
	for _, name := range []string{homeFolder, temporaryFolder} {
		if err := os.MkdirAll(a.path(name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the folder, with what builds leave in it: Go keeps its module
// cache in folders that nobody may write to.
func (a attempt) remove() error {
	err := os.RemoveAll(string(a))
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	err = filepath.WalkDir(string(a), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700) //nolint:gosec // a folder
	})
	return errors.Join(err, os.RemoveAll(string(a)))
}

// lastOutput is the end of what forgexec wrote, more than a tail may have.
func (a attempt) lastOutput() (string, error) {
	file, err := os.Open(a.path(outputFile))
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, size-2*engine.TailBytes), 2*engine.TailBytes))
	return string(text), err
}

var errHeld = errors.New("the lock is held")

// lock takes the lock. Whoever inherits the file holds it too; the last one to
// close it, or to end, gives it back.
func (a attempt) lock() (*os.File, error) {
	return a.flock(os.O_RDWR|os.O_CREATE, syscall.LOCK_EX)
}

func (a attempt) flock(flags, how int) (*os.File, error) {
	file, err := os.OpenFile(a.path(lockFile), flags, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errHeld
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// held reports whether forgexec runs. Nobody must start it meanwhile.
func (a attempt) held() (bool, error) {
	file, err := a.flock(os.O_RDWR, syscall.LOCK_SH)
	if errors.Is(err, errHeld) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	// Closing is not enough: a process that another thread is about to start has
	// the file too, for a moment.
	return false, errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// state is what forgexec has written.
type state struct {
	pid      int // 0: it was not started, or not for long
	exitCode int // -1: it has not ended by itself
}

func (a attempt) state() (state, error) {
	text, err := os.ReadFile(a.path(stateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state{}, err
	}
	var s state
	if n, _ := fmt.Sscanf(string(text), "pid %d\nexit %d\n", &s.pid, &s.exitCode); n < 2 {
		s.exitCode = -1
	}
	return s, nil
}

// inspect says fs.ErrNotExist for an attempt that was never started.
func (a attempt) inspect() (engine.Container, error) {
	running, err := a.held()
	if err != nil {
		return engine.Container{}, err
	}
	info, err := os.Stat(a.path(lockFile)) // nobody writes to it
	if err != nil {
		return engine.Container{}, err
	}
	state, err := a.state()
	if err != nil {
		return engine.Container{}, err
	}
	return engine.Container{
		Attempt: filepath.Base(string(a)), Running: running, Start: info.ModTime(), ExitCode: state.exitCode,
	}, nil
}

// kill kills forgexec, unless it is 0, and the strays, and says how many it found.
func (a attempt) kill(forgexec int) (found int, err error) {
	pids, err := a.strays()
	if err != nil {
		return 0, err
	}
	if forgexec != 0 {
		pids = append(pids, forgexec)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(pids), nil
}
