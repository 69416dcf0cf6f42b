package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// What may be wrong with the model's engine.
const (
	engineWell         = iota
	startIsRefused     // nothing was started
	startIsNotAnswered // it was
	stopFails
	nobodyKnows    // what runs
	startTakesLong // other things happen meanwhile
	troubles
)

// modelEngine has containers with runners in them that live on whatever becomes
// of the scheduler.
type modelEngine struct {
	made       int // containers, in all
	trouble    int
	meanwhile  func() error    // what happens while a Start waits; an error breaks it off
	late       []engine.Spec   // of Starts that were broken off while they made something
	silent     map[string]bool // machines that nobody hears of, nor they of anybody
	containers map[string]*modelContainer
	gone       map[string]*modelContainer // what ran in those that were there
}

type modelContainer struct {
	spec     engine.Spec
	build    *store.Build // as the runner was told
	runnerID string       // empty before it attached
	running  bool
	machine  string
	endedBy  engine.Ending // why it does not run, where that is known
	executed int32         // steps, whoever heard of it
	failed   bool          // the last of them
	reports  []*schedulerv1.Report
	told     int64 // reports that the scheduler has taken
	number   int   // of all that were made
}

func modelMachines() []string { return []string{"worker-1", "worker-2", "worker-3"} }

const modelJob = 2 // steps of each build

// over reports whether all commands have come to their end.
func (c *modelContainer) over() bool { return c.failed || c.executed == modelJob }

// ending reports whether the runner has no more to say than it has.
func (c *modelContainer) ending() bool {
	return len(c.reports) > 0 && c.reports[len(c.reports)-1].GetEnded() != nil
}

// atWork reports whether commands run, or are about to.
func (c *modelContainer) atWork() bool {
	return c.runnerID != "" && c.running && !c.over() && !c.ending()
}

func (e *modelEngine) reset() {
	e.silent, e.late = map[string]bool{}, nil
	e.trouble, e.containers, e.gone = engineWell, map[string]*modelContainer{}, map[string]*modelContainer{}
}

func (e *modelEngine) names() []string { return slices.Sorted(maps.Keys(e.containers)) }

func (*modelEngine) Name() string { return "model" }

func (e *modelEngine) Start(_ context.Context, spec engine.Spec) error {
	if e.trouble == startIsRefused {
		return errors.New("connection refused")
	}
	if e.trouble == startTakesLong {
		if err := e.meanwhile(); err != nil {
			e.late = append(e.late, spec)
			return &engine.WaitError{Reason: "no machine has 4 CPUs free", Err: err}
		}
	}
	e.make(spec)
	if e.trouble == startIsNotAnswered {
		return errors.New("connection reset")
	}
	return nil
}

func (e *modelEngine) make(spec engine.Spec) {
	if e.containers[spec.Attempt] == nil {
		e.made++
		c := &modelContainer{spec: spec, running: true, machine: modelMachines()[len(e.gone)%3], number: e.made}
		e.containers[spec.Attempt] = c
		if before := e.gone[spec.Attempt]; before == nil || before.runnerID == "" { // a second one is never taken up
			e.gone[spec.Attempt] = c
		}
	}
}

// settleLate has what Starts that were broken off were about to make come to be.
func (e *modelEngine) settleLate(random *rand.Rand) {
	for _, spec := range e.late {
		if e.gone[spec.Attempt] == nil && random.IntN(2) == 0 {
			e.make(spec)
		}
	}
	e.late = nil
}

func (e *modelEngine) Stop(_ context.Context, attempt string) error {
	if e.trouble == stopFails {
		return errors.New("connection refused")
	}
	if c := e.containers[attempt]; c != nil && e.silent[c.machine] {
		return errors.New("machine " + c.machine + " is not heard of")
	}
	delete(e.containers, attempt)
	return nil
}

func (e *modelEngine) List(context.Context) (all []engine.Container, err error) {
	if e.trouble == nobodyKnows {
		return nil, errors.New("connection refused")
	}
	for name, c := range e.containers {
		all = append(all, engine.Container{
			Attempt: name, Running: c.running, Unreachable: e.silent[c.machine], ExitCode: -1, Ending: c.endedBy, Machine: c.machine,
		})
	}
	return all, nil
}

func (e *modelEngine) Tail(context.Context, string) (string, error) { return "", nil }

// run has some container go on, by little or by much.
func (m *model) run() {
	names := m.engine.names()
	if len(names) == 0 {
		return
	}
	c := m.engine.containers[names[m.random.IntN(len(names))]]
	for range 1 + m.random.IntN(8) {
		switch {
		case !c.running:
		case m.engine.silent[c.machine]: // commands go on, nobody hears of it
			if c.runnerID == "" || c.over() || c.ending() {
				return
			}
			m.execute(c)
		case c.runnerID == "":
			m.attach(c)
		case !c.over() && !c.ending() && m.random.IntN(2) == 0:
			m.execute(c)
		default:
			m.report(c)
		}
	}
}

func (m *model) attach(c *modelContainer) {
	id := fmt.Sprintf("runner %d of %s", c.number, c.spec.Attempt) // each forgexec makes up its own
	buildID, number, err := m.service.store.AttemptByToken(m.t.Context(), attempt.TokenHash(c.spec.Runner.Token))
	if err == nil && store.AttemptName(buildID, number) != c.spec.Attempt {
		m.t.Errorf("the token of %s opens %s", c.spec.Attempt, store.AttemptName(buildID, number))
	}
	if err == nil {
		c.build, _, err = m.service.attempts.Bind(m.t.Context(), buildID, number, &schedulerv1.Hello{RunnerId: id})
	}
	if err != nil { // its attempt is over: forgexec ends
		m.failed("attach "+c.spec.Attempt, err, fault.Conflict)
		c.running = false
		return
	}
	m.notef("%s attaches", c.spec.Attempt)
	c.runnerID = id
}

// impostor is a second process with the token of a container.
func (m *model) impostor() {
	for _, name := range m.engine.names() {
		c := m.engine.containers[name]
		if c.runnerID == "" {
			continue
		}
		buildID, number, _ := store.KnownAttempt(name)
		if _, _, err := m.service.attempts.Bind(m.t.Context(), buildID, number, &schedulerv1.Hello{RunnerId: "impostor"}); !fault.Is(err, fault.Conflict) {
			m.t.Errorf("a second runner of %s: %v", name, err)
		}
		_, err := m.service.attempts.StoreReports(m.t.Context(), buildID, number, "impostor", []*schedulerv1.Report{over(c.told+1, schedulerv1.Ended_CAUSE_DONE)})
		if !fault.Is(err, fault.Conflict) {
			m.t.Errorf("what a second runner of %s says: %v", name, err)
		}
		return
	}
}

// execute runs the next command, whether the scheduler can be reached or not.
func (m *model) execute(c *modelContainer) {
	c.executed++
	c.failed = m.random.IntN(6) == 0
	m.notef("%s runs step %d", c.spec.Attempt, c.executed)
	next := func() int64 { return int64(len(c.reports)) + 1 }
	code := int32(0)
	if c.failed {
		code = 1
	}
	c.reports = append(c.reports, began(next(), c.executed))
	c.reports = append(c.reports, printed(next(), c.executed, "hello"))
	c.reports = append(c.reports, exited(next(), c.executed, code))
	if c.over() || m.random.IntN(20) == 0 { // now and then a runner ends and leaves steps out
		c.reports = append(c.reports, over(next(), schedulerv1.Ended_CAUSE_DONE))
	}
	if where := deploysTo(c.build); where != "" {
		m.checkDeploy(c, where)
	}
}

// deploysTo is the repository and the environment that a build deploys to.
func deploysTo(b *store.Build) string {
	if name := b.GetEnvironment(); name != "" {
		return fmt.Sprintf("%s of %d", name, b.GetRepository().GetId())
	}
	return ""
}

// checkDeploy holds a deploy that is at work against what was deployed. A job that may fail,
// and ran for too long, is at work until it is stopped, though its build has passed.
func (m *model) checkDeploy(c *modelContainer, where string) {
	at, again := mergeOf(c.build.GetSha()), c.build.GetRetryOf() != "" || c.build.GetPartOf() == m.deployed[where]
	if c.build.GetRollBackOf() == "" && at <= m.frontier[where] && (!again || at != m.frontier[where]) {
		m.t.Errorf("%s deploys %s to %s after merge%d", c.spec.Attempt, c.build.GetSha(), where, m.frontier[where])
	}
}

// report tells the scheduler some of what happened; now and then what was told
// before, or leaving something out.
func (m *model) report(c *modelContainer) {
	from := c.told
	switch m.random.IntN(6) {
	case 0:
		from = m.random.Int64N(c.told + 1)
	case 1:
		from++
	}
	if from >= int64(len(c.reports)) {
		return
	}
	to := from + 1 + m.random.Int64N(int64(len(c.reports))-from)
	buildID, number, _ := store.KnownAttempt(c.spec.Attempt)
	m.notef("%s reports %d to %d", c.spec.Attempt, from+1, to)
	done, err := m.service.attempts.StoreReports(m.t.Context(), buildID, number, c.runnerID, c.reports[from:to])
	switch {
	case fault.Is(err, fault.Conflict):
		c.running = false // told that it is over
	case err != nil:
		m.t.Errorf("reports of %s: %v", c.spec.Attempt, err)
	case done.Gap != (from > c.told):
		m.t.Errorf("%s: reports %d to %d after %d: gap %v", c.spec.Attempt, from+1, to, c.told, done.Gap)
	default:
		c.told = max(c.told, done.Sequence)
		c.running = !done.Ended
	}
}
