package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// strayAfter is the age from which a blob that is no source and no record of a
	// use is removed: no download takes that long.
	strayAfter = 24 * time.Hour

	// A prune has to list every source. There is one after each such share of
	// maxBytes that was downloaded, by which the cache may be too large meanwhile,
	// and one after each such time.
	pruneShare = 32
	pruneAfter = time.Hour
)

// countDownload counts the bytes of a download and returns whether to prune now;
// the caller must do so.
func (c *sourceCache) countDownload(size int64) (pruneNow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downloaded += size
	if now := c.now(); c.downloaded >= c.maxBytes/pruneShare || now.Sub(c.pruned) >= pruneAfter {
		c.pruned, c.downloaded = now, 0
		return true
	}
	return false
}

// cachedSource is a source in the cache.
type cachedSource struct {
	size int64
	used time.Time
}

// prune removes the least recently used sources until the others fit, except the
// one that was just added, and removes what killed processes left.
func (c *sourceCache) prune(ctx context.Context, added string) error {
	kept, used, total := map[string]cachedSource{}, map[string]time.Time{}, int64(0)
	for found, err := range c.store.List(ctx, sourcesFolder) {
		if err != nil {
			return fmt.Errorf("source cache: %w", err)
		}
		if strings.HasSuffix(found.Key, archiveSuffix) || strings.HasSuffix(found.Key, checkoutSuffix) {
			kept[found.Key] = cachedSource{size: found.Size, used: found.Time}
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
		if name != added {
			oldest = append(oldest, name)
		}
	}
	slices.SortFunc(oldest, func(a, b string) int {
		return cmp.Or(kept[a].used.Compare(kept[b].used), strings.Compare(a, b))
	})
	for _, name := range oldest {
		if total <= c.maxBytes {
			break
		}
		total -= kept[name].size
		err := errors.Join(c.store.Remove(ctx, name), c.store.Remove(ctx, name+usedSuffix))
		if err != nil {
			return fmt.Errorf("source cache: %w", err)
		}
	}
	return nil
}
