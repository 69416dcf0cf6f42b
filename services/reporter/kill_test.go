package reporter

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// childAt is where a test has this binary run a reporter instead of tests.
const childAt = "TEST_REPORTER_CHILD"

// child is a reporter in a process of its own.
type child struct {
	Dir    string `json:"dir"`
	Config string `json:"config"`
	Listen string `json:"listen"`
	GitHub string `json:"github"`
}

func beReporter() int {
	var c child
	err := json.Unmarshal([]byte(os.Getenv(childAt)), &c)
	if err == nil {
		err = c.run(context.Background())
	}
	fmt.Fprintln(os.Stderr, "reporter:", err)
	return 1
}

func (c child) run(ctx context.Context) error {
	db, err := sqldb.Open(ctx, sqldb.Config{Dir: c.Dir, Room: "reporter", Migrations: Migrations()})
	if err != nil {
		return err
	}
	config, err := rpc.Dial("unix://"+c.Config, rpc.Peer{Room: "reporter"})
	if err != nil {
		return err
	}
	s, err := New(Deps{DB: db, Config: config, GitHubAPIURL: c.GitHub, Report: "both", Spacing: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(c.Listen); err != nil { // the socket of the one that was killed
		return err
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", c.Listen)
	if err != nil {
		return err
	}
	server := rpc.NewServer(rpc.Config{Name: "reporter", Access: Access(), AdminToken: "admin", TrustLoopback: true})
	s.Register(server)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return s.Run(ctx) })
	running.Go(func() error { return server.Serve(ctx, lis) })
	fmt.Fprintln(os.Stdout, "up")
	return running.Wait()
}

// start runs a child until it is killed.
func (c child) start(t *testing.T) (kill func()) {
	t.Helper()
	as, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	self.Env = append(os.Environ(), childAt+"="+string(as))
	self.Stderr = os.Stderr
	out, err := self.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("the reporter says %q, %v", line, err)
	}
	return func() {
		if err := self.Process.Kill(); err != nil { // SIGKILL
			t.Error(err)
		}
		_ = self.Wait() // says that it was killed
	}
}

// A quarter of the calls is answered 502, cut off before or after GitHub did
// what it was asked, slow, or refused for a second; the reporter is killed ten
// times; each report comes twice and in any order.
func TestReporterThatIsKilledInAStormTellsAll(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	at := child{Dir: dir, Config: filepath.Join(dir, "config"), Listen: filepath.Join(dir, "reporter"), GitHub: w.github.URL}
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", at.Config)
	w.must(err)
	server := rpc.NewServer(rpc.Config{Name: "config", TrustLoopback: true, Access: map[string]rpc.Access{
		configv1.TokenService_CreateToken_FullMethodName: {Rooms: []string{"reporter"}, NoAdmin: true},
	}})
	configv1.RegisterTokenServiceServer(server, tokenServer{world: w})
	w.background(func(ctx context.Context) error { return server.Serve(ctx, lis) })
	for _, m := range []githubsim.Misbehaviour{
		{Share: 0.05, Status: 502},
		{Share: 0.05, Cut: true},
		{Share: 0.05, Cut: true, CarriedOut: true},
		{Share: 0.07, Latency: 100 * time.Millisecond},
		{Share: 0.03, Status: 403, RetryAfter: time.Second},
	} {
		w.sim.Misbehave(m)
	}
	commits := w.commits(24)

	conn, err := rpc.Dial("unix://"+at.Listen, rpc.Peer{Room: "scheduler"})
	w.must(err)
	t.Cleanup(func() { w.must(conn.Close()) })
	reports := w.shuffled(commits)
	kill := at.start(t)
	for i, r := range reports {
		if i%(len(reports)/10) == len(reports)/20 { // ten times
			kill()
			kill = at.start(t)
		}
		w.reportUntilTaken(conn, r)
	}
	admin := reporterv1.NewReporterServiceClient(conn)
	kittest.Eventually(t, 60*time.Second, func() error {
		resp, err := admin.ListTargets(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer admin"), &reporterv1.ListTargetsRequest{
			States: []reporterv1.Target_State{reporterv1.Target_STATE_PENDING, failing, paused, kept},
		})
		if err != nil || len(resp.GetTargets()) > 0 {
			return fmt.Errorf("still to tell %v, %w", resp.GetTargets(), err)
		}
		return nil
	})
	kill()
	for sha := range commits {
		w.wantRightInTheEnd(sha)
	}
}

// shuffled are the reports of a build of each commit, twice and in any order.
func (w *world) shuffled(commits map[string]bool) (reports []*reporterv1.ReportRequest) {
	for sha := range commits {
		for version, state := range []schedulerv1.Build_State{queued, running, bad} {
			b := like(w.build(state), state)
			b.Id, b.Sha = "b"+sha, sha
			if state == bad {
				b.Steps = failedAt("unit tests").GetSteps()
			}
			one := &reporterv1.ReportRequest{Build: b, Version: int64(version + 1), Output: []byte("main.go:3:1: oops\n")}
			reports = append(reports, one, one)
		}
	}
	random := rand.New(rand.NewPCG(3, 4)) // a fixed order, of commits in any
	random.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
	return reports
}

func (w *world) reportUntilTaken(conn *grpc.ClientConn, r *reporterv1.ReportRequest) {
	w.t.Helper()
	kittest.Eventually(w.t, patience, func() error {
		_, err := reporterv1.NewReportServiceClient(conn).Report(w.t.Context(), r)
		return err
	})
}

// wantRightInTheEnd holds what GitHub was told of a commit against a build that
// failed.
func (w *world) wantRightInTheEnd(sha string) {
	w.t.Helper()
	history, err := w.sim.StatusHistory("octo", "shop", sha)
	w.must(err)
	if len(history) == 0 || history[len(history)-1].State != "failure" {
		w.t.Errorf("%s shows %v in the end", sha, history)
	}
	for i := 1; i < len(history); i++ {
		if history[i-1].State != statePending && history[i].State == statePending {
			w.t.Errorf("%s went from %s back to pending", sha, history[i-1].State)
		}
	}
	runs, err := w.sim.CheckRuns("octo", "shop", sha)
	w.must(err)
	if len(runs) != 1 || runs[0].Conclusion != "failure" || len(runs[0].Annotations) != 1 {
		w.t.Errorf("%s has the check runs %+v", sha, runs)
	}
}
