package forgexec

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// A file of 100,000 tests, of which one in a hundred has failed and each has printed
// something, from the end of the last step to where all is told to a scheduler that
// keeps it: s/read. RSS is forgexec's, the test's own code in it included.
func BenchmarkReports(b *testing.B) {
	const count = 100_000
	stack := strings.Repeat("\tat com.acme.shop.Cart.total(Cart.java:12)\n", 40)
	for name, write := range map[string]func(*bufio.Writer, int){
		"junit": func(w *bufio.Writer, n int) {
			failure := ""
			if n%100 == 0 {
				failure = `<failure message="got 1, want 2" type="AssertionError">` + stack + `</failure>`
			}
			fmt.Fprintf(w, `<testcase classname="com.acme.shop.CartTest%d" name="total of %d is right" time="0.0%d">%s<system-out>printed by test %d</system-out></testcase>`+"\n", n/50, n, n%100, failure, n)
		},
		"go": func(w *bufio.Writer, n int) {
			const event = `{"Time":"2026-11-23T12:00:00.000000001Z","Action":"%s","Package":"github.com/acme/shop/p%d","Test":"TestTotal/%d"%s}` + "\n"
			end := "pass"
			fmt.Fprintf(w, event, "run", n/500, n, "")
			fmt.Fprintf(w, event, "output", n/500, n, fmt.Sprintf(`,"Output":"=== RUN   TestTotal/%d\n"`, n))
			if n%100 == 0 {
				end = "fail"
				fmt.Fprintf(w, event, "output", n/500, n, `,"Output":"    cart_test.go:12: got 1, want 2\n"`)
			}
			fmt.Fprintf(w, event, end, n/500, n, `,"Elapsed":0.01`)
		},
	} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "report")
			file, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			w := bufio.NewWriter(file)
			fmt.Fprintln(w, map[string]string{"junit": `<testsuites><testsuite name="shop">`}[name])
			for n := range count {
				write(w, n)
			}
			fmt.Fprintln(w, map[string]string{"junit": `</testsuite></testsuites>`}[name])
			if err := w.Flush(); err != nil {
				b.Fatal(err)
			}
			_ = file.Close()
			var took time.Duration
			peak := 0
			for b.Loop() {
				s := newScheduler(b, "cp "+path+" report")
				s.plan.Reports = map[string]*configv1.Reports{"junit": {Junit: []string{"report"}}, "go": {Go: []string{"report"}}}[name]
				f := s.forgexec(b)
				peak = max(peak, f.peak(b))
				var begin, end time.Time
				told := 0
				for _, report := range s.reports {
					if report.GetStepEnded() != nil {
						begin = report.GetTime().AsTime()
					}
					if report.GetEnded() != nil {
						end = report.GetTime().AsTime()
					}
					told += len(report.GetTests().GetTests())
				}
				if told != count {
					b.Fatalf("%d tests were told, %s", told, f.stderr.String())
				}
				took += end.Sub(begin)
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "s/read")
			b.ReportMetric(float64(peak)/1024, "RSS-MiB")
		})
	}
}

// peak watches a process until it ends and is the most memory that it had, in KiB.
func (f *forgexec) peak(b *testing.B) (peak int) {
	b.Helper()
	highWater := regexp.MustCompile(`VmHWM:\s+(\d+) kB`)
	for {
		select {
		case code := <-f.exited:
			f.exited <- code
			if code != exitReported {
				b.Fatalf("exit code %d: %s", code, f.stderr.String())
			}
			return peak
		case <-time.After(2 * time.Millisecond):
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.cmd.Process.Pid))
		if found := highWater.FindSubmatch(status); err == nil && found != nil {
			kib, err := strconv.Atoi(string(found[1]))
			if err != nil {
				b.Fatal(err)
			}
			peak = max(peak, kib)
		}
	}
}
