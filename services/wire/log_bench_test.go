package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// A step prints 200 MB: ratio is the rate at which its log arrives whole, stored
// and at a follower, to that of the same bytes through a pipe into zstd and a
// file. It prints the time besides, every now and then: ms-p99 is how long the
// follower waits for such a line. RSS is the scheduler's.
func BenchmarkLog(b *testing.B) {
	for _, d := range []deployment{{apart: true}, {apart: true, postgres: true}} {
		b.Run(d.String(), func(b *testing.B) {
			if d.postgres {
				kittest.Require(b, "postgres")
			}
			benchmarkLog(b, d)
		})
	}
}

func benchmarkLog(b *testing.B, d deployment) {
	b.Helper()
	const size = 200 << 20
	w := newWorld(b, nil)
	bulk := filepath.Join(w.dir, "bulk")
	var text bytes.Buffer
	for n := 0; text.Len() < size; n++ {
		fmt.Fprintf(&text, "2026-11-23T12:%02d:%02d.%06dZ  --- PASS: TestSomething/case_%d (0.%02ds) in package %x\n", n/60%60, n%60, n%999983, n%1009, n%100, n*2654435761)
	}
	text.Truncate(size)
	if err := os.WriteFile(bulk, text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	w.push(b, "main", files(".forge.yml", lines(
		"image: busybox",
		"environment: {BULK: '"+bulk+"'}",
		"execute: [bash print.sh]",
	), "print.sh", lines(
		`cat "$BULK" &`,
		// Nothing is started between the look at the clock and the line.
		`while kill -0 $! 2>/dev/null; do echo "seen ${EPOCHREALTIME/[.,]/}000"; sleep 0.02; done`,
		"wait",
	)))
	w.env = append(w.env, "FORGE_LOG_LIMIT=0")
	w.deploy(b, d)

	var piped, printed time.Duration
	var waits []time.Duration
	log := make([]byte, 0, size+1<<20) // growing it would be most of the work
	for n := 0; b.Loop(); n++ {
		piped += w.pipe(b, bulk)
		_, sha := w.propose(b, fmt.Sprintf("change-%d", n), files("notes", strconv.Itoa(n)))
		var took time.Duration
		log, took = w.follow(b, sha, log[:0], &waits)
		printed += took
		if got := seen.ReplaceAll(log, nil); !bytes.HasSuffix(got, text.Bytes()) { // the engine's words stand before
			b.Fatalf("%d bytes arrived of %d, or other ones", len(got), text.Len())
		}
	}
	slices.Sort(waits)
	b.ReportMetric(float64(piped)/float64(printed), "ratio")
	b.ReportMetric(float64(size*b.N)/1e6/printed.Seconds(), "MB/s")
	b.ReportMetric(float64(waits[len(waits)*99/100].Milliseconds()), "ms-p99")
	b.ReportMetric(w.process("scheduler").peak(b), "RSS-MiB")
	b.ReportMetric(0, "ns/op")
}

// seen is a line with the time at which it was printed.
var seen = regexp.MustCompile(`seen (\d{19})\n`)

// pipe is how long a file takes through a pipe into zstd and another file.
func (s *server) pipe(b *testing.B, file string) time.Duration {
	b.Helper()
	begin := time.Now()
	out, err := os.Create(filepath.Join(s.dir, "packed"))
	if err != nil {
		b.Fatal(err)
	}
	pack, err := zstd.NewWriter(out)
	if err != nil {
		b.Fatal(err)
	}
	r, input, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cat := exec.Command("cat", file)
	cat.Stdout = input
	if err := errors.Join(cat.Start(), input.Close()); err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(struct{ io.Writer }{pack}, r)
	if err = errors.Join(err, cat.Wait(), pack.Close(), out.Sync(), out.Close(), r.Close()); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// follow follows the build of a commit from when it is queued to its end. took is
// from the start of its first step until the log was there.
func (w *world) follow(b *testing.B, sha string, log []byte, waits *[]time.Duration) (_ []byte, took time.Duration) {
	b.Helper()
	builds := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler"))
	var id string
	kittest.Eventually(b, patience, func() error {
		list, err := builds.ListBuilds(asAdmin(b.Context()), &schedulerv1.ListBuildsRequest{Sha: sha})
		if err == nil && len(list.GetBuilds()) == 0 {
			err = errors.New("there is no build yet")
		}
		if err == nil {
			id = list.GetBuilds()[0].GetId()
		}
		return err
	})
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	stream, err := builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: id, Follow: true})
	if err != nil {
		b.Fatal(err)
	}
	from := 0 // what may be the beginning of a line with the time
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		log = append(log, part.GetData()...)
		next := len(log) - len("seen 1234567890123456789")
		for _, at := range seen.FindAllSubmatchIndex(log[from:], -1) {
			nanos, err := strconv.ParseInt(string(log[from+at[2]:from+at[3]]), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			*waits = append(*waits, now.Sub(time.Unix(0, nanos)))
			next = max(next, from+at[1])
		}
		from = max(next, 0)
	}
	end := time.Now()
	answer, err := builds.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
	if err != nil {
		b.Fatal(err)
	}
	if answer.GetBuild().GetState() != schedulerv1.Build_STATE_PASSED {
		b.Fatalf("%v", answer.GetBuild())
	}
	return log, end.Sub(answer.GetBuild().GetStartTime().AsTime())
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that the process has had, in MiB.
func (p *process) peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		b.Fatalf("no peak in %s", status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		b.Fatal(err)
	}
	return float64(kib) / 1024
}
