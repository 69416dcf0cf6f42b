package kittest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// swarmSlots are the networks that swarms of this machine may have, and swarmLocks
// holds a file for each, locked by the process that has the swarm. A killed
// process loses its lock, and the file says what it has left.
const (
	swarmSlots = 200
	swarmLocks = "/run/forge-test-swarms"
)

// swarmSlot is a network of this machine, and a folder.
type swarmSlot struct {
	number int
	lock   *os.File
	dir    string
}

// takeSwarmSlot returns one that no process has, with an empty folder, when what
// dead processes have left of all is removed.
func takeSwarmSlot(ctx context.Context) (*swarmSlot, error) {
	if err := os.MkdirAll(swarmLocks, 0o700); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(swarmLocks)
	if err != nil {
		return nil, err
	}
	for _, file := range left {
		number, err := strconv.Atoi(file.Name())
		if err != nil {
			continue
		}
		if slot, err := lockSwarmSlot(number); err == nil {
			if err := slot.release(ctx); err != nil {
				return nil, fmt.Errorf("what a dead process has left: %w", err)
			}
		}
	}
	for number := range swarmSlots {
		slot, err := lockSwarmSlot(number)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if slot.dir, err = os.MkdirTemp("", "forge"); err == nil {
			_, err = slot.lock.WriteString(slot.dir)
		}
		if err != nil {
			return nil, errors.Join(err, slot.release(ctx))
		}
		return slot, nil
	}
	return nil, errors.New("all are taken")
}

// lockSwarmSlot is syscall.EWOULDBLOCK where a process has it.
func lockSwarmSlot(number int) (*swarmSlot, error) {
	path := filepath.Join(swarmLocks, strconv.Itoa(number))
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	held, err := lock.Stat()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// Who had it before may have removed the file that was opened here.
	if there, err := os.Stat(path); err != nil || !os.SameFile(held, there) {
		return nil, errors.Join(syscall.EWOULDBLOCK, lock.Close())
	}
	dir, err := io.ReadAll(lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &swarmSlot{number: number, lock: lock, dir: string(dir)}, nil
}

// bridge is also what the names of cables and control groups begin with.
func (s *swarmSlot) bridge() string { return fmt.Sprintf("forge-t%d", s.number) }

// address is out of the range for benchmarks of networks, which nobody routes.
func (s *swarmSlot) address(host int) string { return fmt.Sprintf("198.18.%d.%d", s.number, host) }

// prepare makes the bridge. A Docker engine on this machine forbids forwarding,
// but for this rule, which is there as long as the bridge is.
func (s *swarmSlot) prepare(ctx context.Context) error {
	return run(ctx,
		[]string{"ip", "link", "add", s.bridge(), "type", "bridge"},
		s.forwarding("--insert"),
		[]string{"ip", "addr", "add", s.address(1) + "/24", "dev", s.bridge()},
		[]string{"ip", "link", "set", s.bridge(), "up"},
	)
}

func (s *swarmSlot) forwarding(how string) []string {
	return []string{
		"iptables", "--wait", how, "FORWARD", "--in-interface", s.bridge(), "--out-interface", s.bridge(), "--jump", "ACCEPT",
	}
}

// release removes all that a swarm leaves behind whose processes have ended: those
// of a killed test take a moment. The slot is anybody's then.
func (s *swarmSlot) release(ctx context.Context) error {
	var removed []error
	// A network namespace without processes takes its end of a cable away, in a while.
	cables, err := filepath.Glob("/sys/class/net/" + s.bridge() + "-*")
	removed = append(removed, err)
	for _, cable := range cables {
		removed = append(removed, retry(ctx, func() error {
			_ = run(ctx, []string{"ip", "link", "delete", filepath.Base(cable)}) // which fails once it is gone
			if _, err := os.Stat(cable); err == nil {
				return fmt.Errorf("%s is still there", cable)
			}
			return nil
		}))
	}
	if _, err := os.Stat("/sys/class/net/" + s.bridge()); err == nil {
		_ = run(ctx, s.forwarding("--delete")) // a test killed in between has made none
		removed = append(removed, run(ctx, []string{"ip", "link", "delete", s.bridge()}))
	}
	removed = append(removed, removeCgroups(ctx, s.bridge()))
	if s.dir != "" {
		removed = append(removed, retry(ctx, func() error { return os.RemoveAll(s.dir) }))
	}
	if err := errors.Join(removed...); err != nil {
		return errors.Join(err, s.lock.Close())
	}
	return errors.Join(os.Remove(s.lock.Name()), s.lock.Close())
}

// removeCgroups removes the empty control groups of that name, of version 1 and 2.
func removeCgroups(ctx context.Context, name string) error {
	var failed []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, err := filepath.Glob(pattern + name)
		failed = append(failed, err)
		for _, root := range roots {
			var groups []string
			err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					groups = append(groups, path)
				}
				return err
			})
			failed = append(failed, err)
			for _, group := range slices.Backward(groups) {
				failed = append(failed, retry(ctx, func() error { return syscall.Rmdir(group) }))
			}
		}
	}
	return errors.Join(failed...)
}

// retry tries again for as long as processes may take to end.
func retry(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
