package config

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/forge-ci/forge/services/kit/blobs"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	maxSourceCache = 2 << 30 // bytes

	sourcesFolder  = "sources/"
	archiveSuffix  = ".tar.gz"
	checkoutSuffix = ".tar.zst"
	// Beside each source lies an empty blob that is written again when the source
	// is used. Its time tells every Forge that shares the store when that was.
	usedSuffix = ".used"
	// recordEvery is how exactly that time is known.
	recordEvery = 10 * time.Minute
)

// sourceCache keeps sources, each of them whole. It removes the least recently
// used first.
type sourceCache struct {
	store     *blobs.Store
	log       *slog.Logger
	maxBytes  int64
	now       func() time.Time
	downloads singleflight[string, struct{}]
	recorded  *lru.Cache[string, time.Time] // when this process last recorded a use

	mu         sync.Mutex
	pruned     time.Time // zero: not yet
	downloaded int64     // bytes downloaded since then
}

func newSourceCache(store *blobs.Store, log *slog.Logger, maxBytes int64, now func() time.Time) (*sourceCache, error) {
	recorded, err := lru.New[string, time.Time](10_000)
	if err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	return &sourceCache{store: store, log: log, maxBytes: maxBytes, now: now, recorded: recorded}, nil
}

// archiveName is the name that GitHub's archive of a commit is kept by.
func archiveName(of commitKey) string {
	return fmt.Sprintf("%s%d-%s%s", sourcesFolder, of.repository, of.sha, archiveSuffix)
}

// open opens a source.
func (c *sourceCache) open(ctx context.Context, name string, create func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	for {
		source, err := c.store.Read(ctx, name, 0, -1)
		if err == nil {
			c.recordUse(ctx, name)
			return source, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("source cache: %w", err)
		}
		// A source that is pruned before it is opened is made again.
		if err := c.prepare(ctx, name, create); err != nil {
			return nil, err
		}
	}
}

// prepare makes a source unless it is there. However many callers ask for it at once,
// it is made once.
func (c *sourceCache) prepare(ctx context.Context, name string, create func(context.Context) (io.ReadCloser, error)) error {
	_, err := c.downloads.do(ctx, name, func(ctx context.Context) (struct{}, error) {
		if found, err := c.store.Has(ctx, name); found || err != nil {
			return struct{}{}, err
		}
		return struct{}{}, c.fetch(ctx, name, create)
	})
	return err
}

// recordUse stores that a source is used. Where that fails the source may be
// pruned too early, and is made again.
func (c *sourceCache) recordUse(ctx context.Context, name string) {
	now := c.now()
	if last, ok := c.recorded.Get(name); ok && now.Sub(last) < recordEvery {
		return
	}
	if c.store.Put(ctx, name+usedSuffix, func(io.Writer) error { return nil }) == nil {
		c.recorded.Add(name, now)
	}
}

func (c *sourceCache) fetch(ctx context.Context, name string, create func(context.Context) (io.ReadCloser, error)) error {
	body, err := create(ctx)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read from
	var size int64
	err = c.store.Put(ctx, name, func(w io.Writer) error {
		size, err = io.Copy(w, body)
		return err
	})
	if err != nil || !c.countDownload(size) {
		return err
	}
	if err := c.prune(ctx, name); err != nil { // the caller has its source all the same
		c.log.WarnContext(ctx, "prune of the source cache failed; it is repeated after a later download", "error", err)
	}
	return nil
}
