package wire_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// one is a repository whose only step is true.
func one() map[string]string {
	return map[string]string{".forge.yml": lines("image: busybox", "execute: ['true']")}
}

// alone returns how forgexec is run by itself with the same step, from a file.
func (w *world) alone(b *testing.B) func() {
	b.Helper()
	plan, err := protojson.Marshal(&schedulerv1.Plan{Steps: []*schedulerv1.PlannedStep{{Number: 1, Run: "true"}}})
	must(b, err)
	file := filepath.Join(w.dir, "plan.json")
	must(b, os.WriteFile(file, plan, 0o600))
	return func() {
		cmd := exec.Command(filepath.Join(binDir, "forgexec"), "--plan", file)
		cmd.Env = append(os.Environ(), "TMPDIR="+w.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Errorf("forgexec: %v\n%s", err, out)
		}
	}
}

// heldPulls makes branches whose pull requests are still to be opened.
func (w *world) heldPulls(b *testing.B, count int) (shas map[string]string) {
	b.Helper()
	shas = map[string]string{}
	for n := range count {
		branch := fmt.Sprintf("change-%d", n)
		shas[branch] = w.branch(b, branch, githubsim.Commit{Files: map[string]string{"file": branch}})
	}
	return shas
}

// BenchmarkFirstCommand is how long it takes from a pull request being opened to
// its first command, in starts of forgexec alone: at most 4.
func BenchmarkFirstCommand(b *testing.B) {
	const samples = 20
	w := newWorld(b, one())
	shas := w.heldPulls(b, samples) // before Forge listens
	w.up(b)
	alone := w.alone(b)
	for range b.N {
		var whole, bare []time.Duration
		for branch, sha := range shas {
			begin := time.Now()
			alone()
			bare = append(bare, time.Since(begin))

			begin = time.Now()
			w.open(b, branch)
			w.shows(b, sha, "forge/test", "success")
			said, err := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler")).GetBuild(b.Context(), &schedulerv1.GetBuildRequest{BuildId: w.builds(b, sha)[0].GetId()})
			must(b, err)
			whole = append(whole, said.GetBuild().GetSteps()[0].GetStartTime().AsTime().Sub(begin))
			must(b, w.sim.WaitDeliveries(b.Context()))
		}
		slices.Sort(whole)
		slices.Sort(bare)
		b.ReportMetric(float64(whole[samples/2].Microseconds())/1000, "ms-to-first-command")
		b.ReportMetric(float64(bare[samples/2].Microseconds())/1000, "ms-forgexec-alone")
		b.ReportMetric(float64(whole[samples/2])/float64(bare[samples/2]), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkManyBuilds is the rate of 1,000 builds of one step, in the rate at
// which a bare loop starts forgexec alone, as many at once: at least 0.4.
func BenchmarkManyBuilds(b *testing.B) {
	const count = 1000
	w := newWorld(b, one())
	shas := w.heldPulls(b, count)
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
		for branch := range shas {
			w.open(b, branch)
		}
		kittest.Eventually(b, 20*time.Minute, func() error {
			for branch, sha := range shas { // a look at Forge's list would cost it something
				shown, err := w.sim.Statuses(owner, repo, sha)
				if err != nil || shown["forge/test"].State != "success" {
					return fmt.Errorf("%d commits have no success yet, such as %s, %w", len(shas), sha, err)
				}
				delete(shas, branch)
			}
			return nil
		})
		whole := time.Since(begin)
		must(b, w.allPassed(b, count))
		b.ReportMetric(count/bare.Seconds(), "forgexecs/s")
		b.ReportMetric(count/whole.Seconds(), "builds/s")
		b.ReportMetric(float64(bare)/float64(whole), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// allPassed is nil once there are as many builds, and all have passed.
func (w *world) allPassed(b *testing.B, count int) error {
	b.Helper()
	client, passed, token := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler")), 0, ""
	for {
		page, err := client.ListBuilds(asAdmin(b.Context()), &schedulerv1.ListBuildsRequest{
			PageSize: 500, PageToken: token, States: []schedulerv1.Build_State{schedulerv1.Build_STATE_PASSED},
		})
		if err != nil {
			return err
		}
		passed += len(page.GetBuilds())
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if passed < count {
		return fmt.Errorf("%d of %d have passed", passed, count)
	}
	return nil
}
