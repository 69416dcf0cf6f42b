package wire_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/blobs"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// nights is a Forge by a clock that the test moves: config, in front of the simulated
// GitHub, and a scheduler whose containers do nothing.
type nights struct {
	*world
	t     *testing.T
	clock *kittest.Clock
	deps  scheduler.Deps
	open  func() *sqldb.DB
	repo  *eventv1.Repository

	service *scheduler.Service
	times   schedulerv1.ScheduleServiceClient
	kill    func()
}

// idle is an engine whose containers are there until they are stopped.
type idle struct {
	mu    sync.Mutex
	there map[string]bool
}

func (*idle) Name() string { return "idle" }

func (e *idle) Start(_ context.Context, spec engine.Spec) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.there[spec.Attempt] = true
	return nil
}

func (e *idle) Stop(_ context.Context, attempt string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.there, attempt)
	return nil
}

func (e *idle) List(context.Context) (all []engine.Container, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.there {
		all = append(all, engine.Container{Attempt: name, Running: true, ExitCode: -1})
	}
	return all, nil
}

func (*idle) Tail(context.Context, string) (string, error) { return "", nil }

// deaf takes what a reporter is told.
type deaf struct {
	reporterv1.UnimplementedReportServiceServer
}

func (deaf) Report(context.Context, *reporterv1.ReportRequest) (*reporterv1.ReportResponse, error) {
	return &reporterv1.ReportResponse{}, nil
}

// served is a connection to what a function registers.
func served(t *testing.T, access map[string]rpc.Access, register func(grpc.ServiceRegistrar), room string) *grpc.ClientConn {
	t.Helper()
	pipe, server := rpc.NewPipe(), rpc.NewServer(rpc.Config{Name: "rooms", Access: access, AdminToken: adminToken})
	register(server)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, pipe) }()
	conn, err := pipe.Dial(room, nil)
	must(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		must(t, <-done)
	})
	return conn
}

func newNights(t *testing.T, open func() *sqldb.DB, file string) *nights {
	n := &nights{world: newWorld(t, map[string]string{".forge.yml": file}), t: t, open: open}
	n.clock = kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	key, err := os.ReadFile(n.key)
	must(t, err)
	asked, err := config.New(config.Deps{
		GitHub: config.GitHub{App: kitgithub.App{ID: appID, Key: key}, APIURL: n.github, PagesURL: n.github}, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	conn := served(t, config.Access(), asked.Register, "scheduler")
	found, err := configv1.NewCommitServiceClient(conn).FindCommit(t.Context(), &configv1.FindCommitRequest{Repository: &eventv1.Repository{Owner: owner, Name: repo}})
	must(t, err)
	n.repo = found.GetRepository()
	logs, err := blobs.Open(t.Context(), blobs.Config{Dir: t.TempDir(), Room: "scheduler"})
	must(t, err)
	t.Cleanup(func() { _ = logs.Close() })
	n.deps = scheduler.Deps{
		Blobs: logs, Config: conn, Engine: &idle{there: map[string]bool{}}, Capacity: 4, ExternalURL: "https://forge.example", SecretsKeys: [][]byte{make([]byte, 32)},
		Reporter: served(t, map[string]rpc.Access{reporterv1.ReportService_Report_FullMethodName: {Rooms: []string{"scheduler"}}}, func(reg grpc.ServiceRegistrar) {
			reporterv1.RegisterReportServiceServer(reg, deaf{})
		}, "scheduler"),
		Policy:  trigger.Policy{IntegrationBranches: []string{"main"}, ProductionBranches: []string{"production"}, Forks: trigger.ForkApprove},
		Runners: attempt.Runners{URL: "unix:///nowhere.sock"}, Limits: attempt.Limits{Timeout: 100 * time.Hour}, Now: n.clock.Now,
	}
	n.start()
	t.Cleanup(func() { n.kill() })
	return n
}

// start has Forge come up on its database.
func (n *nights) start() {
	n.t.Helper()
	n.deps.DB = n.open()
	service, err := scheduler.New(n.deps)
	must(n.t, err)
	n.service, n.times = service, schedulerv1.NewScheduleServiceClient(served(n.t, scheduler.Access(), service.Register, ""))
	ctx, stop := context.WithCancel(context.WithoutCancel(n.t.Context()))
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	n.kill = func() {
		stop()
		must(n.t, <-done)
		must(n.t, n.deps.DB.Close())
		n.kill = func() {}
	}
}

// at moves the clock to a time.
func (n *nights) at(text string) {
	n.t.Helper()
	to, err := time.Parse(time.RFC3339, text)
	must(n.t, err)
	n.clock.Advance(to.Sub(n.clock.Now()))
}

// ran waits for the build of a time, and has it end.
func (n *nights) ran(due string) *schedulerv1.Build {
	n.t.Helper()
	var b *schedulerv1.Build
	kittest.Eventually(n.t, patience, func() error {
		all, err := n.service.ListBuilds(n.t.Context(), &schedulerv1.ListBuildsRequest{})
		must(n.t, err)
		if len(all.GetBuilds()) == 0 || all.GetBuilds()[0].GetScheduleTime().AsTime().Format(time.RFC3339) != due {
			return fmt.Errorf("nothing ran of %s: %v", due, all)
		}
		b = all.GetBuilds()[0]
		return nil
	})
	kittest.Eventually(n.t, patience, func() error { // it may be about to start
		_, err := n.service.CancelBuild(n.t.Context(), &schedulerv1.CancelBuildRequest{BuildId: b.GetId()})
		if answer, _ := n.service.GetBuild(n.t.Context(), &schedulerv1.GetBuildRequest{BuildId: b.GetId()}); answer.GetBuild().GetEndTime() != nil {
			return nil
		}
		return fmt.Errorf("it has not ended: %w", err)
	})
	return b
}

func (n *nights) count() int {
	n.t.Helper()
	all, err := n.service.ListBuilds(n.t.Context(), &schedulerv1.ListBuildsRequest{})
	must(n.t, err)
	return len(all.GetBuilds())
}

// commits changes the file of the default branch; GitHub's push gets lost.
func (n *nights) commits(file string) (sha string) {
	n.t.Helper()
	return n.push(n.t, "main", files(".forge.yml", file))
}

func nightlyFile(what string) string {
	return lines("image: busybox", "execute: 'true'", "schedule: [{name: nightly, cron: '30 3 * * *', zone: Europe/Berlin, execute: '"+what+"'}]")
}

// Nights of a team, with Forge killed and away for some of them, pushes that get lost and
// a file that breaks.
func TestNightlyAcrossDaysWithForgeAway(t *testing.T) {
	kittest.DBs(t, "scheduler", scheduler.Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		n := newNights(t, open, nightlyFile("make one"))
		first, err := n.sim.Head(owner, repo, "main")
		must(t, err)
		receive := func(e *eventv1.Event) {
			t.Helper()
			e.DeliveryId, e.Repository, e.Sender = e.GetName()+e.GetAction(), n.repo, &eventv1.Account{Login: "octocat"}
			_, err := n.service.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
			must(t, err)
		}
		receive(&eventv1.Event{Name: "push", Payload: &eventv1.Event_Push{Push: &eventv1.PushEvent{Ref: "refs/heads/main", After: first, HeadSha: first}}})
		kittest.Eventually(t, patience, func() error { return n.due("2026-11-24T02:30:00Z") })
		n.at("2026-11-24T02:30:00Z")
		if b := n.ran("2026-11-24T02:30:00Z"); b.GetSha() != first || b.GetScheduleNote() != "" || b.GetContext() != "forge/schedule/nightly" {
			t.Errorf("%v", b)
		}
		second := n.commits(nightlyFile("make two"))
		n.at("2026-11-25T02:30:00Z")
		if b := n.ran("2026-11-25T02:30:00Z"); b.GetSha() != second {
			t.Errorf("the push got lost, and yet: %v", b)
		}

		n.kill()
		n.at("2026-11-28T12:00:00Z")
		n.start()
		if b := n.ran("2026-11-26T02:30:00Z"); b.GetScheduleNote() != "late: it was due at 2026-11-26T02:30:00Z" {
			t.Errorf("after three nights away: %v", b)
		}
		kittest.Eventually(t, patience, func() error { return n.due("2026-11-29T02:30:00Z") })
		kittest.Want(t, n.count(), 3, "builds after three nights away")

		broken := n.commits(strings.Replace(nightlyFile("make three"), "image", "imagine", 1))
		n.at("2026-11-29T02:30:00Z")
		if b := n.ran("2026-11-29T02:30:00Z"); b.GetSha() != broken || !strings.HasPrefix(b.GetScheduleNote(), "as the file last was without errors: .forge.yml:1:1: ") {
			t.Errorf("as the file is broken: %v", b)
		}
		n.commits(lines("image: busybox", "execute: 'true'"))

		must(t, n.sim.Fork(owner, repo, "mallory"))
		sha, err := n.sim.Commit("mallory", repo, "main", files(".forge.yml", strings.Replace(nightlyFile("make evil"), "30 3", "* *", 1)))
		must(t, err)
		number, err := n.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "A schedule", Head: "mallory:main", Base: "main", Author: "mallory"})
		must(t, err)
		receive(&eventv1.Event{Name: "pull_request", Action: "opened", Payload: &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{PullRequest: &eventv1.PullRequest{
			Number: int32(number), Open: true, Title: "A schedule", Author: &eventv1.Account{Login: "mallory"},
			Head: &eventv1.PullRequestBranch{Ref: "main", Sha: sha, Repository: &eventv1.Repository{Id: 99}}, Base: &eventv1.PullRequestBranch{Ref: "main", Sha: broken},
		}}}})
		n.at("2026-11-30T02:30:00Z")
		kittest.Eventually(t, patience, func() error { return n.due("") })
		kittest.Want(t, n.count(), 5, "builds, with that of the fork, which waits for approval")
	})
}

// due is an error unless the one schedule is due next at a time; empty: there is none.
func (n *nights) due(next string) error {
	var got []string
	all, err := n.times.ListSchedules(asAdmin(n.t.Context()), &schedulerv1.ListSchedulesRequest{})
	for _, c := range all.GetSchedules() {
		got = append(got, c.GetNextTime().AsTime().Format(time.RFC3339))
	}
	if err == nil && strings.Join(got, " ") != next {
		return fmt.Errorf("due are %q, want %q", got, next)
	}
	return err
}
