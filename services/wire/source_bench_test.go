package wire_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

// BenchmarkCheckout is how long it takes to the first command with a checkout, in
// that with GitHub's archive, while GitHub sends either from memory: of a commit whose
// source was prepared while the container started, of one whose source is asked for
// only then, its parent built before, and the same of a repository that was never
// built. The first at most 1.1.
func BenchmarkCheckout(b *testing.B) {
	workspaces := b.TempDir()
	for _, size := range []struct{ name, files, bytes, samples int }{{5, 500, 10 << 10, 7}, {200, 5000, 40 << 10, 3}} {
		b.Run(fmt.Sprintf("%dMB", size.name), func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 1))
			dir := imported(b, func(w io.Writer) {
				importCommit(w, 0, tree(size.files, size.bytes, func(size int) string { return source(random, size) }))
			})
			w := newSourceWorld(b, dir, lines("image: busybox", "execute: ['true']"))
			w.deploy(b, deployment{apart: true})
			_, sha := w.propose(b, "first", files("first", "x"))
			w.shows(b, sha, "forge/test", "success")
			g := w.newGate(b, workspaces)
			archive := &configv1.GetSourceRequest{Repository: w.builds(b, sha)[0].GetRepository()}
			checkout := proto.CloneOf(archive)
			checkout.Checkout, checkout.Packed = &configv1.Source{}, true
			data := filepath.Join(w.dir, "forge-data")
			w.replay.Store(true)
			for range b.N {
				took := map[string][]time.Duration{}
				for n := range size.samples {
					for _, kind := range []string{"archive", "checkout", "first checkout"} {
						w.kept.Clear()
						request := checkout
						if kind == "archive" {
							request = archive
						}
						if kind == "first checkout" {
							must(b, os.RemoveAll(filepath.Join(data, "mirrors")))
							must(b, os.MkdirAll(filepath.Join(data, "mirrors", "scratch"), 0o700))
						}
						request.Sha = w.push(b, "first", files("changed", fmt.Sprint(kind, n)))
						command(b, "cp", "-a", filepath.Join(data, "mirrors"), filepath.Join(data, "before"))
						g.firstCommand(b, request) // GitHub makes what it sends
						must(b, os.RemoveAll(filepath.Join(data, "mirrors")))
						must(b, os.Rename(filepath.Join(data, "before"), filepath.Join(data, "mirrors")))
						must(b, os.RemoveAll(filepath.Join(data, "blobs", "config")))
						took[kind] = append(took[kind], g.firstCommand(b, request))
						if kind == "checkout" {
							took["prepared"] = append(took["prepared"], g.firstCommand(b, request))
						}
					}
				}
				median := func(kind string) float64 {
					slices.Sort(took[kind])
					return float64(took[kind][len(took[kind])/2].Milliseconds())
				}
				b.ReportMetric(median("archive"), "ms-archive")
				b.ReportMetric(median("prepared"), "ms-prepared")
				b.ReportMetric(median("checkout"), "ms-checkout")
				b.ReportMetric(median("first checkout"), "ms-first-checkout")
				b.ReportMetric(median("prepared")/median("archive"), "ratio")
				b.ReportMetric(median("checkout")/median("archive"), "ratio-unprepared")
				b.ReportMetric(median("first checkout")/median("archive"), "ratio-first")
				b.ReportMetric(w.process("config").peak(b), "RSS-MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkSecondCommit is how many bytes GitHub sends for a second commit of a
// repository of 256 MB, which changes one of its files, in percent of those for the
// first: under 5.
func BenchmarkSecondCommit(b *testing.B) {
	random := rand.NewChaCha8([32]byte{3})
	noise := func(size int) string {
		all := make([]byte, size)
		_, _ = random.Read(all)
		return string(all)
	}
	dir := imported(b, func(w io.Writer) { importCommit(w, 0, tree(256, 1<<20, noise)) })
	w := newSourceWorld(b, dir, lines("image: busybox", "execute: ['true']"))
	w.deploy(b, deployment{apart: true})
	for range b.N {
		_, sha := w.propose(b, "first", files("first", "x"))
		w.shows(b, sha, "forge/test", "success")
		first := w.moved.Load()
		sha = w.push(b, "first", files("folder-000/file-00000.txt", noise(1<<20)))
		w.shows(b, sha, "forge/test", "success")
		second := w.moved.Load() - first
		b.ReportMetric(float64(first)/1e6, "MB-first")
		b.ReportMetric(float64(second)/1e6, "MB-second")
		b.ReportMetric(100*float64(second)/float64(first), "percent")
		b.ReportMetric(w.process("config").peak(b), "RSS-MiB-config")
		b.ReportMetric(w.process("scheduler").peak(b), "RSS-MiB-scheduler")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSixtyBuilds is how often GitHub is asked for a commit that sixty jobs
// build: once.
func BenchmarkSixtyBuilds(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 1))
	dir := imported(b, func(w io.Writer) {
		importCommit(w, 0, tree(500, 10<<10, func(size int) string { return source(random, size) }))
	})
	var cells []string
	for n := range 60 {
		cells = append(cells, strconv.Itoa(n))
	}
	w := newSourceWorld(b, dir, lines("image: busybox", "source: {history: full}", "jobs:", "  test:", "    matrix: {n: ["+strings.Join(cells, ", ")+"]}", "    execute: ['true']"))
	w.deploy(b, deployment{apart: true})
	for range b.N {
		_, sha := w.propose(b, "change", files("first", "x"))
		w.shows(b, sha, "forge/test", "success")
		var fetches int
		for _, call := range w.sim.Calls() {
			if strings.HasSuffix(call.Path, "/git-upload-pack") && strings.Contains(call.Body, "command=fetch") {
				fetches++
			}
		}
		b.ReportMetric(float64(len(w.wholeOf(b, sha).GetJobs())), "builds")
		b.ReportMetric(float64(fetches), "fetches")
		b.ReportMetric(w.process("config").peak(b), "RSS-MiB-config")
		b.ReportMetric(w.process("scheduler").peak(b), "RSS-MiB-scheduler")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFullHistory is how long it takes from a push to the first command, with all
// of 50,000 commits, in the time of git clone file:// of the mirror: at most 1.5.
func BenchmarkFullHistory(b *testing.B) {
	const commits, samples, names = 50_000, 3, 2000
	random := rand.New(rand.NewPCG(1, 1))
	dir := imported(b, func(w io.Writer) {
		all := tree(names, 4<<10, func(size int) string { return source(random, size) })
		importCommit(w, 0, all)
		for n := range commits - 1 {
			name := fmt.Sprintf("folder-%03d/file-%05d.txt", n%names/50, n%names)
			at := random.IntN(len(all[name]) - 100)
			all[name] = all[name][:at] + source(random, 40) + all[name][at+40:]
			importCommit(w, n+1, map[string]string{name: all[name]})
		}
	})
	w := newSourceWorld(b, dir, lines("image: busybox", "source: {history: full}", "execute: ['true']"))
	w.deploy(b, deployment{apart: true})
	_, sha := w.propose(b, "first", files("first", "x"))
	w.shows(b, sha, "forge/test", "success")
	mirrors, err := filepath.Glob(filepath.Join(w.dir, "forge-data", "mirrors", "*.git"))
	must(b, err)
	for range b.N {
		var whole, clone []time.Duration
		for n := range samples {
			to := filepath.Join(b.TempDir(), "clone")
			begin := time.Now()
			command(b, "git", "clone", "-q", "--branch", "main", "file://"+mirrors[0], to)
			clone = append(clone, time.Since(begin))
			must(b, os.RemoveAll(to))

			begin = time.Now()
			sha := w.push(b, "first", files("first", strconv.Itoa(n)))
			w.shows(b, sha, "forge/test", "success")
			whole = append(whole, w.wholeOf(b, sha).GetSteps()[0].GetStartTime().AsTime().Sub(begin))
		}
		slices.Sort(whole)
		slices.Sort(clone)
		b.ReportMetric(whole[samples/2].Seconds(), "s-to-first-command")
		b.ReportMetric(clone[samples/2].Seconds(), "s-clone")
		b.ReportMetric(float64(whole[samples/2])/float64(clone[samples/2]), "ratio")
		b.ReportMetric(w.process("config").peak(b), "RSS-MiB-config")
		b.ReportMetric(w.process("scheduler").peak(b), "RSS-MiB-scheduler")
	}
	b.ReportMetric(0, "ns/op")
}
