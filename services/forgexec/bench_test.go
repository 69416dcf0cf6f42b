package forgexec

import (
	"bytes"
	"crypto/sha256"
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

// What one step prints, through forgexec to a scheduler that keeps it: with no
// secrets to be masked, and with ten that do not come up.
func BenchmarkOutput(b *testing.B) {
	const size = 200 << 20
	const line = "2026-11-25T00:00:00Z INFO request served path=/api/v1/items status=200 took=12ms"
	for _, secrets := range []int{0, 10} {
		b.Run(fmt.Sprintf("secrets=%d", secrets), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				s := newScheduler(b, fmt.Sprintf("yes '%s' | head -c %d", line, size))
				s.plan.Secrets = map[string]string{}
				for n := range secrets {
					s.plan.Secrets[fmt.Sprint("S", n)] = fmt.Sprintf("%032x", sha256.Sum256([]byte{byte(n)}))
				}
				s.forgexec(b).wantExit(b, exitReported)
				got := s.output()
				if want := bytes.Repeat([]byte(line+"\n"), size/(len(line)+1)); len(got) != size || !bytes.HasPrefix(got, want) {
					b.Fatalf("%d bytes arrived, or other ones", len(got))
				}
			}
		})
	}
}
