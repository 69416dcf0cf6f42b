package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

func (m *model) claim() {
	claimed, err := m.service.attempts.ClaimStarts(m.t.Context(), 1+m.random.IntN(2))
	m.failed("claim starts", err)
	for _, c := range claimed {
		m.notef("%s", store.AttemptName(c.Build.GetId(), c.Build.GetAttempt()))
	}
	m.claimed = append(m.claimed, claimed...)
	if m.random.IntN(2) == 0 {
		m.begin()
	}
}

func (m *model) begin() {
	if len(m.claimed) == 0 {
		return
	}
	n := m.random.IntN(len(m.claimed))
	c := m.claimed[n]
	m.claimed = slices.Delete(m.claimed, n, n+1)
	m.notef("%s", store.AttemptName(c.Build.GetId(), c.Build.GetAttempt()))
	ctx, end := context.WithCancelCause(m.t.Context())
	defer end(nil)
	outer := m.engine.meanwhile
	defer func() { m.engine.meanwhile = outer }()
	m.engine.meanwhile = func() error { return m.meanwhile(c, outer != nil, ctx, end) }
	m.service.attempts.Start(ctx, c)
}

// meanwhile is what happens while a Start waits. Its lease is renewed then, or its
// process is told to stop.
func (m *model) meanwhile(c attempt.Start, nested bool, ctx context.Context, end context.CancelCauseFunc) error { //nolint:revive // ctx is what end ends
	things := []func(){m.cancel, m.wait, m.claim, m.sweep, m.claimStops, m.run, m.deliver}
	for range m.random.IntN(4) {
		if !nested {
			things[m.random.IntN(len(things))]()
		}
	}
	name := store.AttemptName(c.Build.GetId(), c.Build.GetAttempt())
	switch err := m.service.attempts.Starts.Renew(ctx, c); {
	case errors.Is(err, due.ErrOver):
		m.notef("%s is broken off", name)
		end(due.ErrOver)
	case err != nil:
		m.t.Errorf("renew %s: %v", name, err)
	case m.random.IntN(3) == 0:
		m.notef("the process of %s stops", name)
		end(due.ErrStopped)
	}
	return ctx.Err()
}

func (m *model) claimStops() {
	claimed, err := m.service.store.ClaimStops(m.t.Context(), 2)
	m.failed("claim stops", err)
	m.stopping = append(m.stopping, claimed...)
	if m.random.IntN(2) == 0 {
		m.stop()
	}
}

func (m *model) stop() {
	if len(m.stopping) == 0 {
		return
	}
	c := m.stopping[0]
	m.stopping = m.stopping[1:]
	m.notef("%s", store.AttemptName(c.BuildID, c.Attempt))
	m.service.attempts.Stop(m.t.Context(), c)
}

func (m *model) sweep() {
	if err := m.service.attempts.Sweep(m.t.Context()); err != nil && m.engine.trouble == engineWell {
		m.t.Errorf("sweep: %v", err)
	}
}

func (m *model) vanish() {
	if names := m.engine.names(); len(names) > 0 {
		name := names[m.random.IntN(len(names))]
		m.notef("%s", name)
		delete(m.engine.containers, name)
	}
}

// machine has one that is heard of fall silent, or one that is not come back.
func (m *model) machine() {
	name := modelMachines()[m.random.IntN(3)]
	m.engine.silent[name] = !m.engine.silent[name]
	m.notef("%s is silent: %v", name, m.engine.silent[name])
}

// end has a container end from outside.
func (m *model) end() {
	if names := m.engine.names(); len(names) > 0 {
		c := m.engine.containers[names[m.random.IntN(len(names))]]
		if c.running {
			c.running, c.endedBy = false, engine.Ending(m.random.IntN(int(engine.Withdrawn)+1))
			m.notef("%s: %d", c.spec.Attempt, c.endedBy)
		}
	}
}

func (m *model) cancel() {
	if builds := m.builds(); len(builds) > 0 {
		id := builds[m.random.IntN(len(builds))].GetId()
		m.notef("%s", id)
		_, err := m.service.CancelBuild(m.t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id})
		m.failed("cancel", err, fault.Conflict)
	}
}

func (m *model) approve() {
	blocked := slices.DeleteFunc(m.builds(), func(b *store.Build) bool { return b.GetState() != schedulerv1.Build_STATE_BLOCKED })
	if len(blocked) == 0 {
		return
	}
	id := blocked[m.random.IntN(len(blocked))].GetId()
	m.notef("%s", id)
	_, err := m.service.ApproveBuild(m.t.Context(), &schedulerv1.ApproveBuildRequest{BuildId: id})
	m.failed("approve", err)
	modelChecker{m}.checkGates(m.builds())
}

func (m *model) retry() {
	if builds := m.builds(); len(builds) > 0 {
		b := builds[m.random.IntN(len(builds))]
		m.notef("%s", b.GetId())
		failed := b.HasJobs() && m.random.IntN(2) == 0
		answer, err := m.service.RetryBuild(m.t.Context(), &schedulerv1.RetryBuildRequest{BuildId: b.GetId(), FailedOnly: failed})
		m.failed("retry", err, fault.Conflict, fault.Exists)
		if err == nil {
			m.asked[contentOf(b)] = true
			m.notef("as %s", answer.GetBuild().GetId())
		}
	}
}

// tellNews has some news told, or a process that was about to tell them end.
func (m *model) tellNews() {
	claimed, err := m.service.store.ClaimTargets(m.t.Context(), 1+m.random.IntN(3))
	m.failed("claim targets", err)
	for _, c := range claimed {
		if m.random.IntN(6) > 0 {
			m.service.outbox.Report(m.t.Context(), c)
		}
	}
}

func (m *model) place() (repository, environment string) {
	environment = "staging"
	if !m.deploys && m.random.IntN(3) == 0 {
		environment = "production"
	}
	if m.gated && m.random.IntN(2) == 0 {
		environment = []string{"canary", "edge"}[m.random.IntN(2)]
	}
	return fmt.Sprintf("Acme/shop-%d", 1+m.random.Int64N(m.repositories)), environment
}

func (m *model) freeze() {
	repository, environment := m.place()
	_, err := m.service.FreezeEnvironment(m.t.Context(), &schedulerv1.FreezeEnvironmentRequest{
		Repository: repository, Environment: environment, Message: "winter",
	})
	m.failed("freeze", err, fault.NotFound)
}

func (m *model) unfreeze() {
	repository, environment := m.place()
	_, err := m.service.UnfreezeEnvironment(m.t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: repository, Environment: environment})
	m.failed("unfreeze", err, fault.NotFound)
}

func (m *model) rollBack() {
	repository, environment := m.place()
	builds := m.builds()
	m.random.Shuffle(len(builds), func(i, j int) { builds[i], builds[j] = builds[j], builds[i] })
	for _, b := range builds {
		if b.GetState() == schedulerv1.Build_STATE_PASSED && !b.IsJob() && b.GetEnvironment() == environment &&
			strings.EqualFold(wording.FullName(b.GetRepository()), repository) {
			m.notef("%s of %s to %s", environment, repository, b.GetId())
			_, err := m.service.RollBackEnvironment(m.t.Context(), &schedulerv1.RollBackEnvironmentRequest{
				Repository: repository, Environment: environment, BuildId: b.GetId(),
			})
			m.failed("roll back", err)
			return
		}
	}
}

func (m *model) wait() {
	m.clock.Advance([]time.Duration{time.Second, 11 * time.Second, time.Minute, 6 * time.Minute, 2 * time.Hour}[m.random.IntN(5)])
}

// failed fails the test at an error that is none of the kinds.
func (m *model) failed(what string, err error, kinds ...fault.Kind) {
	if err != nil && !slices.Contains(kinds, fault.KindOf(err)) {
		m.t.Errorf("%s: %v", what, err)
	}
}

// drain lets all go well: every build must end, and nothing be left.
func (m *model) drain() {
	m.log = append(m.log, "all goes well from here on")
	m.engine.settleLate(m.random)
	m.engine.trouble, m.unsure, m.away = engineWell, false, false
	clear(m.engine.silent)
	for _, repository := range []string{"Acme/shop-1", "Acme/shop-2"} {
		for _, environment := range []string{"staging", "production", "canary", "edge"} {
			_, err := m.service.UnfreezeEnvironment(m.t.Context(), &schedulerv1.UnfreezeEnvironmentRequest{Repository: repository, Environment: environment})
			m.failed("unfreeze", err, fault.NotFound)
		}
	}
	var left error
	for n := range 80 + 2*len(m.builds()) {
		for len(m.pending) > 0 {
			m.deliver()
		}
		for range m.builds() {
			if n%4 == 3 { // several come to wait for that meanwhile
				m.approve()
			}
			m.tellNews()
		}
		m.claim()
		for len(m.claimed) > 0 {
			m.begin()
		}
		for range len(m.engine.containers) {
			m.run()
		}
		m.claimStops()
		for len(m.stopping) > 0 {
			m.stop()
		}
		m.clock.Advance(20 * time.Second)
		m.sweep()
		modelChecker{m}.check()
		if left = m.unfinished(); left == nil || m.t.Failed() {
			break
		}
	}
	m.failed("in the end", left)
}

func (m *model) unfinished() error {
	for _, b := range m.builds() {
		if !store.Ended(b.GetState()) {
			return fmt.Errorf("build %s is %v: %s", b.GetId(), b.GetState(), b.GetMessage())
		}
	}
	if names := m.engine.names(); len(names) > 0 {
		return fmt.Errorf("containers are left: %v", names)
	}
	newest := map[string]*store.Build{}
	for _, b := range m.builds() {
		newest[targetOf(b.Build)] = b
	}
	for at, b := range newest {
		if told := m.told[at].GetBuild(); told.GetId() != b.GetId() || told.GetState() != b.GetState() || told.GetMessage() != b.GetMessage() {
			return fmt.Errorf("%s is told as %v of build %s, it is %v of %s", at, told.GetState(), told.GetId(), b.GetState(), b.GetId())
		}
	}
	for _, e := range m.environments() {
		if e.Holder != "" {
			return fmt.Errorf("%s is held by build %s, which has ended", e.Name, e.Holder)
		}
	}
	return nil
}
