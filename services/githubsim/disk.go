package githubsim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// A disk is where git finds what it serves: a temporary folder, which is made once it is needed.
type disk struct {
	log     *slog.Logger
	running sync.WaitGroup // requests that use the folder

	mu     sync.Mutex // guards all below
	folder string
	closed bool
	cancel map[*context.CancelFunc]bool // of what is running
	stores map[*repository]*store       // by the root of the network
}

func newDisk(log *slog.Logger) *disk {
	return &disk{log: log, cancel: map[*context.CancelFunc]bool{}, stores: map[*repository]*store{}}
}

// begin lets a request use the folder until it calls end. Its context ends with the disk.
func (d *disk) begin(ctx context.Context) (until context.Context, end func(), err error) {
	until, cancel := context.WithCancel(ctx)
	release, err := d.hold(cancel)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return until, func() {
		cancel()
		release()
	}, nil
}

// hold keeps the folder there until release is called. Close calls cancel, if there is one, and waits for release.
func (d *disk) hold(cancel context.CancelFunc) (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("this GitHub is closed")
	}
	if cancel != nil {
		d.cancel[&cancel] = true
	}
	d.running.Add(1)
	return func() {
		d.mu.Lock()
		delete(d.cancel, &cancel)
		d.mu.Unlock()
		d.running.Done()
	}, nil
}

// store returns the store of a repository's network. It takes no lock but the disk's own.
func (d *disk) store(r *repository) (*store, error) {
	root := r.root()
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.stores[root]; known != nil {
		return known, nil
	}
	if d.folder == "" {
		folder, err := os.MkdirTemp("", "githubsim-")
		if err != nil {
			return nil, fmt.Errorf("folder for git: %w", err)
		}
		d.folder = folder
	}
	made := &store{
		folder: filepath.Join(d.folder, strconv.FormatInt(root.id, 10)),
		has:    map[string]bool{}, refs: map[*repository]string{},
	}
	made.reader = &reader{disk: d, folder: filepath.Join(made.folder, "all.git"), objects: made.objects(), recent: map[string]tree{}}
	if err := makeBare(made.reader.folder); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(made.objects(), 0o700); err != nil {
		return nil, err
	}
	d.stores[root] = made
	return made, nil
}

// close ends what is running and removes the folder.
func (d *disk) close() {
	d.mu.Lock()
	d.closed = true
	for cancel := range d.cancel {
		(*cancel)()
	}
	d.mu.Unlock()
	d.running.Wait()
	if d.folder != "" {
		_ = os.RemoveAll(d.folder) // what is left of a temporary folder harms nobody
	}
}
