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

	sourcesFolder = "sources/"
	sourceSuffix  = ".tar.gz"
	// Beside each tarball lies an empty blob that is written again when the tarball
	// is used. Its time tells every Forge that shares the store when that was.
	usedSuffix = ".used"
	// recordEvery is how exactly that time is known.
	recordEvery = 10 * time.Minute
)

// sourceCache keeps tarballs, each of them whole. It removes the least recently
// used first.
type sourceCache struct {
	store     *blobs.Store
	log       *slog.Logger
	maxBytes  int64
	now       func() time.Time
	downloads singleflight[commitKey, struct{}]
	recorded  *lru.Cache[commitKey, time.Time] // when this process last recorded a use

	mu         sync.Mutex
	pruned     time.Time // zero: not yet
	downloaded int64     // bytes downloaded since then
}

func newSourceCache(store *blobs.Store, log *slog.Logger, maxBytes int64, now func() time.Time) (*sourceCache, error) {
	recorded, err := lru.New[commitKey, time.Time](10_000)
	if err != nil {
		return nil, fmt.Errorf("source cache: %w", err)
	}
	return &sourceCache{store: store, log: log, maxBytes: maxBytes, now: now, recorded: recorded}, nil
}

func sourceName(of commitKey) string {
	return fmt.Sprintf("%s%d-%s", sourcesFolder, of.repository, of.sha)
}

// open opens the tarball of a commit. However many callers ask for it at once, it
// is downloaded once.
func (c *sourceCache) open(ctx context.Context, of commitKey, download func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	key := sourceName(of) + sourceSuffix
	for {
		tarball, err := c.store.Read(ctx, key, 0, -1)
		if err == nil {
			c.recordUse(ctx, of)
			return tarball, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("source cache: %w", err)
		}
		// A tarball that is pruned before it is opened is downloaded again.
		_, err = c.downloads.do(ctx, of, func(ctx context.Context) (struct{}, error) {
			if found, err := c.store.Has(ctx, key); found || err != nil { // downloaded since Read
				return struct{}{}, err
			}
			return struct{}{}, c.fetch(ctx, key, download)
		})
		if err != nil {
			return nil, err
		}
	}
}

// recordUse stores that a tarball is used. Where that fails the tarball may be
// pruned too early, and is downloaded again.
func (c *sourceCache) recordUse(ctx context.Context, of commitKey) {
	now := c.now()
	if last, ok := c.recorded.Get(of); ok && now.Sub(last) < recordEvery {
		return
	}
	if c.store.Put(ctx, sourceName(of)+usedSuffix, func(io.Writer) error { return nil }) == nil {
		c.recorded.Add(of, now)
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
	if err != nil || !c.countDownload(size) {
		return err
	}
	if err := c.prune(ctx, key); err != nil { // the caller has its source all the same
		c.log.WarnContext(ctx, "prune of the source cache failed; it is repeated after a later download", "error", err)
	}
	return nil
}
