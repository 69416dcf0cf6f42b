package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// crowd is a world with many runners.
type crowd struct{ *world }

// attachedRunner plays the forgexec of a build that runs a silent command.
type attachedRunner struct {
	build, token string
	stream       schedulerv1.RunnerService_AttachClient
	cancelled    chan time.Time
	sent         []byte // what it has printed
}

// seedRunning puts running builds into the scheduler's database, whose runners
// are still to attach.
func (w crowd) seedRunning(b *testing.B, count int) (runners []*attachedRunner) {
	b.Helper()
	db, err := sqldb.Open(b.Context(), sqldb.Config{Dir: filepath.Join(w.dir, "forge-data"), Room: "scheduler", Migrations: scheduler.Migrations()})
	must(b, err)
	defer db.Close()
	config, err := proto.Marshal(&configv1.BuildConfig{Image: "busybox", Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Run: "sleep 3600"}}}})
	must(b, err)
	rows := store.New(db, time.Now, func(store.Queue) {})
	err = rows.Write(b.Context(), func(ctx context.Context, t *store.Tx) error {
		for n := range count {
			r := &attachedRunner{build: fmt.Sprintf("build%021d", n), token: fmt.Sprintf("token-%d", n), cancelled: make(chan time.Time, 1)}
			runners = append(runners, r)
			seen, err := proto.Marshal(&schedulerv1.Build{
				Id: r.build, Repository: &eventv1.Repository{Id: 1, Owner: owner, Name: repo}, Action: schedulerv1.Build_ACTION_TEST,
				Sha: r.build, State: schedulerv1.Build_STATE_RUNNING, Context: "forge/test", Image: "busybox", StepCount: 1, Attempt: 1,
			})
			if err != nil {
				return err
			}
			err = errors.Join(
				t.Exec(ctx, `INSERT INTO builds (id, repository_id, repository, pull_request, sha, action, state, priority,
						due_time, tries, cancel_time, cancel_reason, cancel_message, traceparent, build, config)
					VALUES ($1, 1, 'octo-org/hello', $2, $1, 1, $3, 2, $4, 0, 0, 0, '', '', $5, $6)`,
					r.build, n, int32(schedulerv1.Build_STATE_RUNNING), int64(store.Never), seen, config),
				t.AddAttempt(ctx, r.build, 1), t.AddToken(ctx, attempt.TokenHash(r.token), r.build, 1),
				// They have a while to attach.
				t.SaveAttempt(ctx, &store.Attempt{BuildID: r.build, Number: 1, Placed: true, RunnerID: r.build, Contact: t.Now.Add(5 * time.Minute), Deadline: t.Now.Add(time.Hour)}))
			if err != nil {
				return err
			}
		}
		return nil
	})
	must(b, err)
	return runners
}

// attach attaches over a connection of its own, as a runner does.
func (r *attachedRunner) attach(ctx context.Context, b *testing.B, address string, trust credentials.TransportCredentials) bool {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(trust), grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(0), grpc.WithNoProxy())
	if err != nil {
		b.Error(err)
		return false
	}
	b.Cleanup(func() { _ = conn.Close() })
	r.stream, err = schedulerv1.NewRunnerServiceClient(conn).Attach(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), attempt.TokenHeader, r.token))
	if err == nil {
		err = r.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Hello{Hello: &schedulerv1.Hello{
			RunnerId: r.build, HasPlan: true, HasSource: true, MasksSecrets: true, HeedsJobs: true,
		}}})
	}
	if err == nil {
		_, err = r.stream.Recv() // the welcome
	}
	if err != nil {
		b.Errorf("attach %s: %v", r.build, err)
	}
	return err == nil
}

// live sends a heartbeat each 5 seconds, as forgexec does, and waits to be told to
// stop.
func (r *attachedRunner) live(ctx context.Context) {
	var beating sync.WaitGroup
	defer beating.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	beating.Go(func() {
		next := time.NewTimer(rand.N(5 * time.Second))
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				_ = r.stream.CloseSend()
				return
			case <-next.C:
				next.Reset(5 * time.Second)
			}
			if r.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: &schedulerv1.Report{
				Event: &schedulerv1.Report_Heartbeat{Heartbeat: &schedulerv1.Heartbeat{}},
			}}}) != nil {
				return
			}
		}
	})
	for {
		message, err := r.stream.Recv()
		if err != nil {
			return
		}
		if message.GetCancel() != nil {
			r.cancelled <- time.Now()
		}
	}
}

// used is the time that the process has had of a CPU, and its memory now in MiB.
func (p *process) used(b *testing.B) (cpu time.Duration, rss float64) {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	must(b, err)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	must(b, err)
	system, err := strconv.Atoi(fields[12])
	must(b, err)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	must(b, err)
	kib, err := strconv.Atoi(string(regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)[1]))
	must(b, err)
	return time.Duration(user+system) * 10 * time.Millisecond, float64(kib) / 1024
}

// lasts is how long something is watched.
func lasts(b *testing.B, watched time.Duration) {
	b.Helper()
	timer := time.NewTimer(watched)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	}
}

// manyFiles says that so many connections take more than this process may open.
func manyFiles(b *testing.B, wanted uint64) {
	b.Helper()
	var limit syscall.Rlimit
	must(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Max < wanted {
		b.Fatalf("at most %d files may be open here, and this takes %d: ulimit -n %[2]d", limit.Max, wanted)
	}
}

// attachAll attaches runners, 32 at a time, each of which lives until leave is called,
// which waits for them.
func attachAll(b *testing.B, runners []*attachedRunner, address string, trust credentials.TransportCredentials, live func(context.Context, *attachedRunner)) (leave func()) {
	b.Helper()
	var attaching, living sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	waiting := make(chan *attachedRunner)
	for range 32 {
		attaching.Go(func() {
			for r := range waiting {
				if r.attach(ctx, b, address, trust) {
					living.Go(func() { live(ctx, r) }) // at once, or it is soon taken for lost
				}
			}
		})
	}
	for _, r := range runners {
		waiting <- r
	}
	close(waiting)
	attaching.Wait()
	leave = func() { cancel(); living.Wait() }
	if b.Failed() {
		leave()
		b.FailNow()
	}
	return leave
}

// overTLS prepares a scheduler that runners reach over TLS, and runs it once there are
// builds for them.
func (w crowd) overTLS(b *testing.B, builds int) (runners []*attachedRunner, address string, trust credentials.TransportCredentials) {
	b.Helper()
	address = kittest.FreeAddress(b)
	w.env = append(w.env, "FORGE_RUNNER_ADDRESS="+address, fmt.Sprintf("FORGE_CAPACITY=%d", 2*builds))
	w.lay(b, deployment{apart: true})
	runners = w.seedRunning(b, builds)
	w.begin(b, w.processes...)
	w.awaitUp(b)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
	authority, err := os.ReadFile(filepath.Join(w.dir, "forge-data", "runner-tls", "cert.pem"))
	must(b, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return runners, address, credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
}

// BenchmarkAttachedRunners is what 5,000 runners cost that are attached over TLS and
// print nothing: at most 400 MB and half a core; ms-p99 is how long a cancellation
// takes to reach its runner, the slowest of 100: less than a second.
func BenchmarkAttachedRunners(b *testing.B) {
	const count, cancels, watched = 5000, 200, 20 * time.Second
	manyFiles(b, 15000)
	w := crowd{newWorld(b, nil)}
	runners, address, trust := w.overTLS(b, count)
	for range b.N {
		begin := time.Now()
		leave := attachAll(b, runners, address, trust, func(ctx context.Context, r *attachedRunner) { r.live(ctx) })
		b.ReportMetric(time.Since(begin).Seconds(), "s-to-attach")
		lasts(b, watched/2)
		before, _ := w.process("scheduler").used(b)
		lasts(b, watched)
		after, rss := w.process("scheduler").used(b)
		b.ReportMetric((after-before).Seconds()/watched.Seconds(), "cores")
		b.ReportMetric(rss, "RSS-MiB")

		builds := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler"))
		var waits []time.Duration
		for _, r := range runners[:cancels] {
			asked := time.Now()
			_, err := builds.CancelBuild(asAdmin(b.Context()), &schedulerv1.CancelBuildRequest{BuildId: r.build})
			must(b, err)
			select {
			case told := <-r.cancelled:
				waits = append(waits, told.Sub(asked))
			case <-time.After(patience):
				b.Fatalf("%s was not told to stop", r.build)
			}
		}
		slices.Sort(waits)
		b.ReportMetric(float64(waits[cancels/2].Microseconds())/1000, "ms-to-cancel")
		b.ReportMetric(float64(waits[cancels*99/100].Microseconds())/1000, "ms-p99")
		leave()
	}
	b.ReportMetric(0, "ns/op")
}
