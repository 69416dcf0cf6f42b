package forgexec

import (
	"bytes"
	"fmt"
	"testing"
)

// From the start of the process to the end of it, with one step: true. Ratio to
// local is what the scheduler, the source and the acknowledgements cost.
func BenchmarkAttempt(b *testing.B) {
	b.Run("local", func(b *testing.B) {
		plan := planFile(b, "true")
		for b.Loop() {
			startForgexec(b, nil, []string{"--plan", plan}, "TMPDIR="+b.TempDir()).wantExit(b, 0)
		}
	})
	b.Run("attached", func(b *testing.B) {
		for b.Loop() {
			newScheduler(b, "true").forgexec(b).wantExit(b, exitReported)
		}
	})
}

// What one step prints, through forgexec to a scheduler that keeps it.
func BenchmarkOutput(b *testing.B) {
	const size = 200 << 20
	b.SetBytes(size)
	for b.Loop() {
		s := newScheduler(b, fmt.Sprintf("head -c %d /dev/zero", size))
		s.forgexec(b).wantExit(b, exitReported)
		if got := s.output(); len(got) != size || len(bytes.Trim(got, "\x00")) > 0 {
			b.Fatalf("%d bytes arrived", len(got))
		}
	}
}
