package daemon

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// Garbage may take as much memory as what is used, which is Go's own measure, but no
	// more than mostGarbage, unless that is less than leastGarbage percent: to collect it
	// ever more often would take the processor instead.
	mostGarbage  = 40 << 20
	leastGarbage = 25
	garbageEvery = 5 * time.Second
)

// BoundGarbage bounds how much garbage lies about in a process that holds much, such as
// thousands of silent connections, until ctx ends. GOGC and GOMEMLIMIT win.
func BoundGarbage(ctx context.Context) error {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	percent := 100
	defer func() { debug.SetGCPercent(100) }()
	tick := time.NewTicker(garbageEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := garbagePercent(held()); now != percent {
			percent = now
			debug.SetGCPercent(percent)
		}
	}
}

// held is what Go goes by when it decides when to collect garbage next: what it found
// alive the last time, and stacks.
func held() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

// garbagePercent is by how much used memory may grow before garbage is collected.
func garbagePercent(used uint64) int {
	return int(min(100, max(leastGarbage, mostGarbage*100/max(used, 1))))
}
