package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	maxSourceCache = 2 << 30 // bytes

	sourcesFolder = "sources/"
	sourceSuffix  = ".tar.gz"
	// Beside a tarball lies an empty blob, written again when the tarball is used:
	// all that share a bucket see by its time when that was.
	usedSuffix = ".used"
	// noteEvery is how exactly that is known.
	noteEvery = 10 * time.Minute
	// strayAfter is the age of what belongs to no tarball and to no download that is
	// still under way.
	strayAfter = 24 * time.Hour

	// To see what there is in all costs a look at each tarball. It is taken after
	// this share of the cache was downloaded, by which the cache may be too large
	// meanwhile, or after this time.
	lookShare = 32
	lookAfter = time.Hour
)

// sourceCache keeps tarballs, each whole or not there. Those used last stay.
type sourceCache struct {
	store   *blobs.Store
	log     *slog.Logger
	most    int64 // bytes
	now     func() time.Time
	flights flights[commit, struct{}]
	noted   *lru.Cache[commit, time.Time] // uses, by this process

	mu     sync.Mutex
	looked time.Time // zero: not yet
	since  int64     // bytes downloaded since then
}

func newSourceCache(store *blobs.Store, log *slog.Logger, most int64, now func() time.Time) (*sourceCache, error) {
	noted, err := lru.New[commit, time.Time](10_000)
	if err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	return &sourceCache{store: store, log: log, most: most, now: now, noted: noted}, nil
}

func sourceKey(at commit) string { return fmt.Sprintf("%s%d-%s", sourcesFolder, at.repository, at.sha) }

// open opens the tarball of a commit. However many ask at once, it is downloaded
// once.
func (c *sourceCache) open(ctx context.Context, at commit, download func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	key := sourceKey(at) + sourceSuffix
	for {
		kept, err := c.store.Read(ctx, key, 0, -1)
		if err == nil {
			c.note(ctx, at)
			return kept, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("source cache: %w", err)
		}
		// One that is evicted before it is opened is downloaded again.
		_, err = c.flights.do(ctx, at, func(ctx context.Context) (struct{}, error) {
			if found, err := c.store.Has(ctx, key); found || err != nil { // fetched between our look and our turn
				return struct{}{}, err
			}
			return struct{}{}, c.fetch(ctx, key, download)
		})
		if err != nil {
			return nil, err
		}
	}
}

// note stores that a tarball is used. Where that cannot be stored it leaves
// early, and is downloaded again.
func (c *sourceCache) note(ctx context.Context, at commit) {
	now := c.now()
	if last, ok := c.noted.Get(at); ok && now.Sub(last) < noteEvery {
		return
	}
	if c.store.Put(ctx, sourceKey(at)+usedSuffix, func(io.Writer) error { return nil }) == nil {
		c.noted.Add(at, now)
	}
}

func (c *sourceCache) fetch(ctx context.Context, key string, download func(context.Context) (io.ReadCloser, error)) error {
	body, err := download(ctx)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read from
	var size int64
	err = c.store.Put(ctx, key, func(w io.Writer) error {
		size, err = io.Copy(w, body)
		return err
	})
	if err != nil || !c.mayBeFull(size) {
		return err
	}
	if err := c.evict(ctx, key); err != nil { // what nobody uses any more costs nobody the source
		c.log.WarnContext(ctx, "old sources not removed; tried again after a later download", "error", err)
	}
	return nil
}

// mayBeFull reports whether it is time for a look, now that size bytes more are there.
func (c *sourceCache) mayBeFull(size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since += size
	if now := c.now(); c.since >= c.most/lookShare || now.Sub(c.looked) >= lookAfter {
		c.looked, c.since = now, 0
		return true
	}
	return false
}

// tarball is one that is kept.
type tarball struct {
	size int64
	used time.Time
}

// evict removes the tarballs used longest ago until the rest fit, but not the one
// that was just added; and what killed processes have left.
func (c *sourceCache) evict(ctx context.Context, added string) error {
	kept, used, total := map[string]tarball{}, map[string]time.Time{}, int64(0)
	for found, err := range c.store.List(ctx, sourcesFolder) {
		if err != nil {
			return fmt.Errorf("source cache: %w", err)
		}
		if name, ok := strings.CutSuffix(found.Key, sourceSuffix); ok {
			kept[name] = tarball{size: found.Size, used: found.Time}
			total += found.Size
		} else if name, ok := strings.CutSuffix(found.Key, usedSuffix); ok {
			used[name] = found.Time
		} else if c.now().Sub(found.Time) > strayAfter {
			if err := c.store.Remove(ctx, found.Key); err != nil {
				return fmt.Errorf("source cache: %w", err)
			}
		}
	}
	var oldest []string
	for name, one := range kept {
		if at := used[name]; at.After(one.used) {
			one.used = at
			kept[name] = one
		}
		if name+sourceSuffix != added {
			oldest = append(oldest, name)
		}
	}
	slices.SortFunc(oldest, func(a, b string) int {
		return cmp.Or(kept[a].used.Compare(kept[b].used), strings.Compare(a, b))
	})
	for _, name := range oldest {
		if total <= c.most {
			break
		}
		total -= kept[name].size
		err := errors.Join(c.store.Remove(ctx, name+sourceSuffix), c.store.Remove(ctx, name+usedSuffix))
		if err != nil {
			return fmt.Errorf("source cache: %w", err)
		}
	}
	return nil
}
