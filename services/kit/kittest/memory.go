package kittest

import (
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"
)

// PeakRSS begins to watch this process's memory and returns what says, in MiB,
// the most it held since: what measures included. Where the system does not tell
// it is 0.
func PeakRSS(b *testing.B) func() float64 {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // begins a new peak
		return func() float64 { return 0 }
	}
	return func() float64 {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			b.Fatal(err)
		}
		peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
		if peak == nil {
			b.Fatalf("no peak in %s", status)
		}
		kib, err := strconv.Atoi(string(peak[1]))
		if err != nil {
			b.Fatal(err)
		}
		return float64(kib) / 1024
	}
}
