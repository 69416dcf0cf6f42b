package forgexec

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// From the start of the process to the end of it, with one step: true. Ratio to
// local is what the scheduler, the source and the acknowledgements cost. Of the
// whole, ms/first-command is from the start of the process to that of the command.
func BenchmarkAttempt(b *testing.B) {
	b.Run("local", func(b *testing.B) {
		plan := planFile(b, "true")
		for b.Loop() {
			startForgexec(b, nil, []string{"--plan", plan}, "TMPDIR="+b.TempDir()).wantExit(b, 0)
		}
	})
	b.Run("attached", func(b *testing.B) {
		var first time.Duration
		for b.Loop() {
			s := newScheduler(b, "true")
			s.start(b)
			begin := time.Now()
			s.forgexec(b).wantExit(b, exitReported)
			for _, report := range s.reports {
				if report.GetStepStarted() != nil {
					first += report.GetTime().AsTime().Sub(begin)
				}
			}
		}
		b.ReportMetric(float64(first.Microseconds())/1000/float64(b.N), "ms/first-command")
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
