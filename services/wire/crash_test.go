package wire_test

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	kitgithub "github.com/forge-ci/forge/services/kit/github"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const (
	stormPulls   = 80 // pull requests in all; TEST_CRASH is another number
	calmPatience = 3 * time.Minute
)

// Pull requests are opened, pushed to and merged while Forge's processes are
// killed again and again. Nothing that was answered 200 is lost, no command runs
// twice, and GitHub shows what is true in the end. TEST_SEED repeats what people
// did and what was killed, though not to the microsecond.
func TestSIGKILLAnywhereLosesNothing(t *testing.T) {
	t.Parallel()
	pulls, err := strconv.Atoi(cmp.Or(os.Getenv("TEST_CRASH"), strconv.Itoa(stormPulls)))
	if err != nil {
		t.Fatalf("TEST_CRASH: %v; it is the number of pull requests", err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("TEST_SEED"), strconv.FormatUint(rand.Uint64(), 10)), 10, 64)
	if err != nil {
		t.Fatalf("TEST_SEED: %v", err)
	}
	t.Logf("TEST_SEED=%d", seed)
	for _, d := range []deployment{{}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			s := newStorm(t, d, seed)
			begin := time.Now()
			for len(s.proposals) < pulls/2 {
				s.work()
				s.strike()
			}
			raged := time.Since(begin)
			s.calm()
			t.Logf("%d pull requests, %d kills in %v, calm after another %v", len(s.proposals), s.kills,
				raged.Round(time.Millisecond), (time.Since(begin) - raged).Round(time.Millisecond))
			s.everyDeliveryIsDecided()
			builds := s.everyBuildIsRight()
			s.everyCommandRanOnce(builds)
			s.nothingIsLeft()
		})
	}
}

// storm is a Forge whose processes are killed while people work.
type storm struct {
	*world
	t      *testing.T
	random *rand.Rand
	app    *github.Client // the App's owner, who presses "Redeliver"
	ledger string         // file with a line for each command that ran

	proposals []*proposal
	merges    []string                           // merge commits, in order
	outcomes  map[string]schedulerv1.Build_State // what a build of a commit is to come to
	answered  atomic.Int64                       // deliveries, by Forge
	kills     int
	lost      map[string]bool // deploys of which nobody can tell how they ended, and commits of those that were not run again
}

// proposal is a pull request, as its author knows it.
type proposal struct {
	branch string
	number int
	head   string
	passes bool
	merged string // the merge commit, once merged
}

func newStorm(t *testing.T, d deployment, seed uint64) *storm {
	t.Helper()
	w := newWorld(t, nil)
	s := &storm{world: w, t: t, random: rand.New(rand.NewPCG(seed, seed)), ledger: filepath.Join(w.dir, "ledger")}
	s.outcomes = map[string]schedulerv1.Build_State{}
	w.push(t, "main", files(".forge.yml", lines(
		"image: busybox",
		"environment: {LEDGER: '"+s.ledger+"'}",
		"execute: [sh step.sh one, sh step.sh two, sh step.sh three && grep PASSED verdict]",
		"staging: [sh step.sh one, sh step.sh two]",
		"deploy: {staging: [sh step.sh one, sh step.sh two]}",
	), "step.sh", lines(
		"attempt=${FORGE_WORKSPACE%/workspace}",
		`echo "${attempt##*/} $1" >>"$LEDGER"`,
		"sleep 0.1",
	), "verdict", "STATE_PASSED\n"))
	key, err := os.ReadFile(w.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.app, err = kitgithub.NewApp(kitgithub.Config{APIURL: w.github}, kitgithub.App{ID: appID, Key: key}); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "FORGE_CAPACITY=8")
	if d.replicas > 0 {
		w.bucket(t)
	}
	w.deploy(t, d)
	w.sim.SetWebhook(s.relay(t, w.http)+"/v1/listen", webhookSecret)
	return s
}

// relay stands between GitHub and Forge, to see the answers as they are given.
func (s *storm) relay(t *testing.T, forge string) (url string) {
	t.Helper()
	to, err := http.NewRequest(http.MethodGet, forge, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to.URL) },
		ModifyResponse: func(*http.Response) error {
			s.answered.Add(1)
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	})
	t.Cleanup(server.Close)
	return server.URL
}

// work is what people do between two kills.
func (s *storm) work() {
	for range 1 + s.random.IntN(6) {
		switch p, dice := s.anyOpen(), s.random.IntN(100); {
		case p == nil || dice < 60:
			s.propose()
		case dice < 85:
			s.mend(p)
		case p.passes:
			p.merged = s.merge(s.t, p.number)
			s.outcomes[p.merged] = schedulerv1.Build_STATE_PASSED
			s.merges = append(s.merges, p.merged)
		}
	}
	s.pause(500 * time.Millisecond)
	s.await(s.moments()[s.random.IntN(len(s.moments()))])
	if s.random.IntN(4) == 0 {
		s.redeliver()
	}
}

func (s *storm) anyOpen() *proposal {
	open := slices.DeleteFunc(slices.Clone(s.proposals), func(p *proposal) bool { return p.merged != "" })
	if len(open) == 0 {
		return nil
	}
	return open[s.random.IntN(len(open))]
}

func (s *storm) propose() {
	p := &proposal{branch: fmt.Sprintf("change-%d", len(s.proposals)+1)}
	s.proposals = append(s.proposals, p)
	p.number, p.head = s.world.propose(s.t, p.branch, s.change(p))
	s.outcomes[p.head] = p.outcome()
}

func (s *storm) mend(p *proposal) {
	p.head = s.push(s.t, p.branch, s.change(p))
	s.outcomes[p.head] = p.outcome()
}

// change never conflicts with that of another pull request which passes.
func (s *storm) change(p *proposal) githubsim.Commit {
	p.passes = s.random.IntN(3) > 0
	return files("notes/"+p.branch, fmt.Sprintf("thought %x\n", s.random.Uint64()), "verdict", p.outcome().String()+"\n")
}

func (p *proposal) outcome() schedulerv1.Build_State {
	if p.passes {
		return schedulerv1.Build_STATE_PASSED
	}
	return schedulerv1.Build_STATE_FAILED
}

// strike kills one process, or all, and starts them again at once; now and then
// once more while they start.
func (s *storm) strike() {
	struck := s.processes
	if s.random.IntN(3) > 0 {
		one := s.random.IntN(len(s.processes))
		struck = s.processes[one : one+1]
	}
	for range 1 + s.random.IntN(5)/4 {
		for _, p := range struck {
			select {
			case <-p.exited:
				s.t.Fatalf("%s ended by itself: %v\n%s", p.name, p.err, p.output)
			default:
				p.kill()
				s.kills++
			}
		}
		for _, p := range struck {
			p.begin(s.t)
		}
		s.pause(200 * time.Millisecond)
	}
}

// moments are those at which a kill does harm, if any does. Each is a number
// that changes when the moment has come.
func (s *storm) moments() []func() int64 {
	return []func() int64{
		s.answered.Load, // before it is relayed
		s.planned.Load,  // before the build is stored
		s.told.Load,     // before the reporter has stored it
		func() int64 { // a container starts or goes
			folders, _ := os.ReadDir(filepath.Join(s.dir, "forge-data", "process")) // none before the first
			return int64(len(folders))
		},
		func() int64 { // a command has begun
			ledger, err := os.Stat(s.ledger)
			if err != nil {
				return 0
			}
			return ledger.Size()
		},
	}
}

// await waits for the moment, or until it is not worth waiting for.
func (s *storm) await(moment func() int64) {
	const worthwhile, often = 500 * time.Millisecond, 200 * time.Microsecond
	end := time.After(worthwhile)
	tick := time.NewTicker(often)
	defer tick.Stop()
	for before := moment(); moment() == before; {
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
	s.pause(3 * time.Millisecond) // all of the moment
}

func (s *storm) pause(most time.Duration) {
	timer := time.NewTimer(time.Duration(s.random.Int64N(int64(most))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.t.Context().Done():
	}
}

// redeliver has GitHub send again what was not accepted, and reports how much
// that was.
func (s *storm) redeliver() (missing int) {
	s.t.Helper()
	latest := map[string]int64{}
	for _, d := range s.sim.Deliveries() {
		latest[d.GUID] = d.ID
	}
	for guid := range s.accepted() {
		delete(latest, guid)
	}
	for _, guid := range slices.Sorted(maps.Keys(latest)) {
		_, _, err := s.app.Apps.RedeliverHookDelivery(s.t.Context(), latest[guid])
		if _, taken := errors.AsType[*github.AcceptedError](err); !taken {
			s.t.Fatalf("redeliver %s: %v", guid, err)
		}
	}
	return len(latest)
}

// accepted are the ids of the deliveries that were answered 200, and how often.
func (s *storm) accepted() map[string]int {
	answered := map[string]int{}
	for _, d := range s.sim.Deliveries() {
		if d.StatusCode == http.StatusOK {
			answered[d.GUID]++
		}
	}
	return answered
}

// calm waits until all is delivered, decided, built and told.
func (s *storm) calm() {
	s.t.Helper()
	s.awaitUp(s.t)
	ctx := asAdmin(s.t.Context())
	deliveries := gatewayv1.NewDeliveryServiceClient(s.dial(s.t, "gateway"))
	builds := schedulerv1.NewBuildServiceClient(s.dial(s.t, "scheduler"))
	targets := reporterv1.NewReporterServiceClient(s.dial(s.t, "reporter"))
	kittest.Eventually(s.t, calmPatience, func() error {
		if err := s.sim.WaitDeliveries(ctx); err != nil {
			return err
		}
		if missing := s.redeliver(); missing > 0 { //nolint:contextcheck // the test's
			return fmt.Errorf("%d deliveries were not accepted", missing)
		}
		undecided, err := deliveries.ListDeliveries(ctx, &gatewayv1.ListDeliveriesRequest{State: gatewayv1.Delivery_STATE_PENDING})
		if err != nil {
			return err
		}
		running, err := builds.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{States: unfinished()})
		if err != nil {
			return err
		}
		untold, err := targets.ListTargets(ctx, &reporterv1.ListTargetsRequest{States: []reporterv1.Target_State{
			reporterv1.Target_STATE_PENDING, reporterv1.Target_STATE_FAILING, reporterv1.Target_STATE_PAUSED,
		}})
		if err != nil {
			return err
		}
		if len(undecided.GetDeliveries())+len(running.GetBuilds())+len(untold.GetTargets()) > 0 {
			return fmt.Errorf("undecided: %v; running: %v; untold: %v", undecided, running, untold)
		}
		return nil
	})
}

func unfinished() (states []schedulerv1.Build_State) {
	for number := range schedulerv1.Build_State_name {
		if state := schedulerv1.Build_State(number); state != 0 && state < schedulerv1.Build_STATE_PASSED {
			states = append(states, state)
		}
	}
	return states
}
