package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	maxSourceCache = 2 << 30 // bytes
	sourceSuffix   = ".tar.gz"
)

// sourceCache keeps tarballs as files, each whole or not there. Those used last
// stay; a file's time is when it was.
type sourceCache struct {
	folder  string
	most    int64 // bytes
	now     func() time.Time
	flights flights[commit, struct{}]
	evictMu sync.Mutex
}

// newSourceCache removes what downloads that never ended have left.
func newSourceCache(dataDir string, most int64, now func() time.Time) (*sourceCache, error) {
	folder := filepath.Join(dataDir, "sources")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), sourceSuffix) {
			if err := os.Remove(filepath.Join(folder, entry.Name())); err != nil {
				return nil, fmt.Errorf("source cache: %w", err)
			}
		}
	}
	return &sourceCache{folder: folder, most: most, now: now}, nil
}

// open opens the tarball of a commit. However many ask at once, it is downloaded
// once.
func (c *sourceCache) open(ctx context.Context, at commit, download func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	path := filepath.Join(c.folder, fmt.Sprintf("%d-%s%s", at.repository, at.sha, sourceSuffix))
	for {
		file, err := c.openKept(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
		// One that is evicted before it is opened is downloaded again.
		_, err = c.flights.do(ctx, at, func(ctx context.Context) (struct{}, error) {
			if _, err := os.Stat(path); err == nil { // fetched between our look and our turn
				return struct{}{}, nil
			}
			return struct{}{}, c.fetch(ctx, path, download)
		})
		if err != nil {
			return nil, err
		}
	}
}

func (c *sourceCache) openKept(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	now := c.now()
	if err := os.Chtimes(path, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = file.Close()
		return nil, fmt.Errorf("source cache: %w", err)
	}
	return file, nil
}

func (c *sourceCache) fetch(ctx context.Context, path string, download func(context.Context) (io.ReadCloser, error)) (err error) {
	body, err := download(ctx)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read from
	file, err := os.CreateTemp(c.folder, "download-*")
	if err != nil {
		return noRoom(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = io.Copy(writes{file}, body)
	if err == nil {
		err = noRoom(file.Sync())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return noRoom(err)
	}
	return c.evict(path)
}

// evict removes the files used longest ago until the rest fit, but not the one
// that was just added.
func (c *sourceCache) evict(added string) error {
	c.evictMu.Lock()
	defer c.evictMu.Unlock()
	entries, err := os.ReadDir(c.folder)
	if err != nil {
		return noRoom(err)
	}
	var kept []fs.FileInfo
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(info.Name(), sourceSuffix) {
			continue // being downloaded, or given up
		}
		kept = append(kept, info)
		total += info.Size()
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, oldest := range kept {
		if total <= c.most {
			return nil
		}
		if oldest.Name() == filepath.Base(added) {
			continue
		}
		// Who has it open reads it to its end.
		if err := os.Remove(filepath.Join(c.folder, oldest.Name())); err != nil {
			return noRoom(err)
		}
		total -= oldest.Size()
	}
	return nil
}

// writes names errors of the disk, which would look like the download's.
type writes struct{ file *os.File }

func (w writes) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	return n, noRoom(err)
}

// noRoom makes the disk's errors worth another try: a full disk does not stay so.
func noRoom(err error) error {
	if err == nil {
		return nil
	}
	return fault.Newf(fault.Unavailable, "source cache: %w", err)
}
