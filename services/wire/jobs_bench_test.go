package wire_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// wholeOf is the build of a commit, with its jobs.
func (w *world) wholeOf(b *testing.B, sha string) *schedulerv1.Build {
	b.Helper()
	return w.whole(b, w.builds(b, sha)[0].GetId())
}

func (w *world) whole(b *testing.B, id string) *schedulerv1.Build {
	b.Helper()
	answer, err := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler")).GetBuild(b.Context(), &schedulerv1.GetBuildRequest{BuildId: id})
	must(b, err)
	return answer.GetBuild()
}

// BenchmarkManyJobs is the rate of 100 jobs of one step in one build, in the rate at
// which a bare loop starts forgexec alone: at least 0.4.
func BenchmarkManyJobs(b *testing.B) {
	const count = 100
	w := newWorld(b, nil)
	w.env = append(w.env, "FORGE_CAPACITY=8")
	var file strings.Builder
	file.WriteString("image: busybox\njobs:\n")
	for n := range count {
		fmt.Fprintf(&file, "  job-%d: {execute: ['true']}\n", n)
	}
	sha := w.branch(b, "change", files(".forge.yml", file.String()))
	w.up(b)
	alone := w.alone(b)
	for range b.N {
		begin := time.Now()
		var loops sync.WaitGroup
		for range runtime.NumCPU() {
			loops.Go(func() {
				for range count / runtime.NumCPU() {
					alone()
				}
			})
		}
		loops.Wait()
		bare := time.Since(begin)

		begin = time.Now()
		w.open(b, "change")
		w.shows(b, sha, "forge/test", "success")
		whole := time.Since(begin)
		if jobs := w.wholeOf(b, sha).GetJobs(); len(jobs) != count {
			b.Fatalf("%d jobs", len(jobs))
		}
		b.ReportMetric(count/bare.Seconds(), "forgexecs/s")
		b.ReportMetric(count/whole.Seconds(), "jobs/s")
		b.ReportMetric(float64(bare)/float64(whole), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkNextJob is how long it takes from the end of a job's command to the first
// of a job that needs it, in starts of forgexec alone: at most 4.
func BenchmarkNextJob(b *testing.B) {
	const count = 20
	w := newWorld(b, nil)
	var file strings.Builder
	file.WriteString("image: busybox\njobs:\n  job-0: {execute: ['true']}\n")
	for n := 1; n < count; n++ {
		fmt.Fprintf(&file, "  job-%d: {needs: [job-%d], execute: ['true']}\n", n, n-1)
	}
	sha := w.branch(b, "change", files(".forge.yml", file.String()))
	w.up(b)
	alone := w.alone(b)
	for range b.N {
		var bare, next []time.Duration
		for range count {
			begin := time.Now()
			alone()
			bare = append(bare, time.Since(begin))
		}
		w.open(b, "change")
		w.shows(b, sha, "forge/test", "success")
		var ended time.Time
		for n, job := range w.wholeOf(b, sha).GetJobs() {
			step := w.whole(b, job.GetId()).GetSteps()[0]
			if n > 0 {
				next = append(next, step.GetStartTime().AsTime().Sub(ended))
			}
			ended = step.GetEndTime().AsTime()
		}
		slices.Sort(bare)
		slices.Sort(next)
		b.ReportMetric(float64(next[len(next)/2].Microseconds())/1000, "ms-to-next-job")
		b.ReportMetric(float64(bare[count/2].Microseconds())/1000, "ms-forgexec-alone")
		b.ReportMetric(float64(next[len(next)/2])/float64(bare[count/2]), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}
