package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engines"
)

const (
	lockFile = "lock"
	// runningFile says that one was begun here and has not ended: with which engine, and
	// by which name the engine knows its containers.
	runningFile = "running"
	// sweepWithin is for what the engine is told to remove at once; builds that were asked
	// to end get goesWithin before that.
	sweepWithin = time.Minute
	goesWithin  = time.Minute
	sweepEvery  = 50 * time.Millisecond
)

// localState is the folder that a local Forge keeps its things in, of which there is one
// at a time. What one that was killed has left is removed by the next.
type localState struct {
	dir  string
	kept bool // for the next one
	lock *os.File
}

// openLocalState takes the folder, or one for this time alone where another has it.
func openLocalState(ctx context.Context, s LocalSettings) (*localState, error) {
	st := &localState{dir: filepath.Join(s.Temporary, "state")}
	if s.Dir == "" {
		return st, os.Mkdir(st.dir, 0o700)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(s.Dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = errors.Join(lock.Close(), os.Mkdir(st.dir, 0o700))
		return st, err
	}
	st.lock, st.kept, st.dir = lock, true, filepath.Join(s.Dir, "state")
	err = errors.Join(st.recover(ctx, s), os.MkdirAll(st.dir, 0o700))
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

func (st *localState) close() error {
	if st.lock == nil {
		return nil
	}
	return st.lock.Close()
}

func (st *localState) running() string { return filepath.Join(filepath.Dir(st.dir), runningFile) }

func (st *localState) begin(name, instance string) error {
	return os.WriteFile(st.running(), []byte(name+"\n"+instance+"\n"), 0o600)
}

func (st *localState) ended() error { return os.Remove(st.running()) }

// recover removes all that one has left that was killed, its containers and images first.
func (st *localState) recover(ctx context.Context, s LocalSettings) error {
	text, err := os.ReadFile(st.running())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	words := strings.Fields(string(text))
	if err == nil && len(words) == 2 {
		var found engine.Engine
		found, err = engines.New(ctx, engines.Config{Name: words[0], Instance: words[1], DataDir: st.dir, Log: s.Log, Build: engines.Build(s.Build)})
		if err == nil {
			err = errors.Join(st.removeAll(ctx, found), forgetImages(ctx, found, words[1]), closeEngine(found))
		}
	}
	if err != nil {
		return fmt.Errorf("what a run before this one has left cannot be removed: %w", err)
	}
	return errors.Join(removeTree(st.dir), st.ended())
}

// sweep waits until no container is left, and removes those that are once now ends.
func (st *localState) sweep(now context.Context, containers engine.Engine) error {
	waiting, cancel := context.WithTimeout(now, goesWithin)
	defer cancel()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		left, err := containers.List(context.WithoutCancel(now))
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-waiting.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(now), sweepWithin)
			defer cancel()
			return st.removeAll(ctx, containers)
		}
	}
}

// removeAll removes all containers.
func (*localState) removeAll(ctx context.Context, containers engine.Engine) error {
	left, err := containers.List(ctx)
	for _, one := range left {
		err = errors.Join(err, containers.Stop(ctx, one.Attempt))
	}
	return err
}

// removeTree removes a folder, whatever modes builds have left in it.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700) //nolint:gosec // a folder
	})
	return os.RemoveAll(dir)
}
