package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock is a repository's, shared or held alone. Each git that is started under it
// holds it, too.
type lock struct {
	file   *os.File
	waited bool // for somebody who had it
}

// take waits for the lock.
func take(ctx context.Context, path string, alone bool) (*lock, error) {
	const first, most = 2 * time.Millisecond, 100 * time.Millisecond
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	for pause := first; ; pause = min(2*pause, most) {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return &lock{file, pause > first}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, fmt.Errorf("lock: %w", errors.Join(err, file.Close()))
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(ctx.Err(), file.Close())
		case <-timer.C:
		}
	}
}

// free gives the lock back, unless a git still holds it.
func (l *lock) free() { _ = l.file.Close() }
