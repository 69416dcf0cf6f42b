package scheduler

import (
	"fmt"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func (m *model) builds() []*store.Build {
	all, err := sqldb.Collect(m.t.Context(), m.db.Read(), store.ScanBuild, `SELECT `+store.BuildColumns+` FROM builds ORDER BY number`)
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

func (m *model) environments() []*store.Environment {
	all, err := sqldb.Collect(m.t.Context(), m.db.Read(), store.ScanEnvironment, `SELECT `+store.EnvironmentColumns+` FROM environments`)
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

type modelAttempt struct {
	*store.Attempt
	stopping bool
}

func (m *model) attempts() map[string]modelAttempt {
	all, err := sqldb.Collect(m.t.Context(), m.db.Read(), func(row sqldb.Row) (modelAttempt, error) {
		a := &store.Attempt{}
		var contact, deadline, asked, kept, stop int64
		err := row.Scan(&a.BuildID, &a.Number, &a.Placed, &a.RunnerID, &a.Sequence, &a.LogSize, &contact, &deadline, &a.Ended, &a.Machine, &asked, &a.Spans, &a.Keeps, &kept, &stop)
		a.Deadline = store.DueTime(deadline)
		return modelAttempt{a, stop != store.Never}, err
	}, `SELECT `+store.AttemptColumns+`, stop_time FROM attempts`)
	if err != nil {
		m.t.Fatal(err)
	}
	byName := map[string]modelAttempt{}
	for _, a := range all {
		byName[a.Name()] = a
	}
	return byName
}

// modelChecker holds what the store tells against the promises.
type modelChecker struct{ *model }

// check holds the store, and what really happened, against the promises.
func (m modelChecker) check() {
	m.steps++
	builds, attempts := m.builds(), m.attempts()
	byID, content := map[string]*store.Build{}, map[string]string{}
	for _, b := range builds {
		byID[b.GetId()] = b
		if m.ended[b.GetId()] != 0 && m.ended[b.GetId()] != b.GetState() {
			m.t.Errorf("build %s ended as %v and is %v", b.GetId(), m.ended[b.GetId()], b.GetState())
		}
		if store.Ended(b.GetState()) && m.ended[b.GetId()] == 0 {
			m.ended[b.GetId()] = b.GetState()
			m.built++
			m.checkEnd(b)
		}
		if !b.IsJob() {
			m.checkContent(content, b)
		}
	}
	m.checkJobs(builds)
	m.checkTimes(builds)
	m.checkGates(builds)
	for _, b := range builds {
		m.checkNotForgotten(b, byID, attempts)
	}
	live := map[string]bool{}
	for name, a := range attempts {
		if b := byID[a.BuildID]; !a.Ended && (store.Ended(b.GetState()) || a.Number != b.GetAttempt()) {
			m.t.Errorf("attempt %s is live, its build is %v in attempt %d", name, b.GetState(), b.GetAttempt())
		}
		if !a.Ended {
			live[name] = true
		}
	}
	if len(live) > m.service.attempts.Capacity {
		m.t.Errorf("%v have places, capacity %d", live, m.service.attempts.Capacity)
	}
	m.checkGroups(byID)
	m.checkEnvironments(builds, byID, attempts)
	m.checkDecisions(byID)
}

// checkContent: no event is built twice, and what somebody wants again not at once.
func (m modelChecker) checkContent(seen map[string]string, b *store.Build) {
	if b.GetState() == schedulerv1.Build_STATE_CANCELLED || b.GetRollBackOf() != "" || b.GetSchedule() != "" {
		return
	}
	what := contentOf(b)
	if m.asked[what] {
		if store.Ended(b.GetState()) {
			return
		}
		what += " and has not ended"
	}
	if seen[what] != "" {
		m.t.Errorf("builds %s and %s are of one commit for one purpose", seen[what], b.GetId())
	}
	seen[what] = b.GetId()
}

func contentOf(b *store.Build) string {
	return fmt.Sprint(b.GetRepository().GetId(), b.GetPullRequest(), b.GetSha(), b.GetAction(), b.GetEnvironment())
}

// checkEnd: nothing uncertain turns green, or red by the user's fault.
func (m modelChecker) checkEnd(b *store.Build) {
	ran := m.engine.gone[store.AttemptName(b.GetId(), b.GetAttempt())]
	itself := !b.HasJobs() && b.GetReason() != schedulerv1.Build_REASON_CARRIED
	switch b.GetState() {
	case schedulerv1.Build_STATE_PASSED:
		if itself && (ran == nil || ran.failed || ran.executed != modelJob) {
			m.t.Errorf("build %s passed, and what ran was %+v", b.GetId(), ran)
		}
		if where := deploysTo(b); where != "" && b.GetRollBackOf() == "" && !b.IsJob() {
			if at := mergeOf(b.GetSha()); at > m.frontier[where] {
				m.frontier[where], m.deployed[where] = at, b.GetId()
			}
		}
	case schedulerv1.Build_STATE_FAILED:
		limited := ran != nil && (ran.endedBy == engine.OutOfMemory && b.GetReason() == schedulerv1.Build_REASON_OUT_OF_MEMORY ||
			ran.endedBy == engine.OutOfDisk && b.GetReason() == schedulerv1.Build_REASON_OUT_OF_DISK)
		if itself && (ran == nil || !ran.failed) && !limited {
			m.t.Errorf("build %s failed, and what ran was %+v", b.GetId(), ran)
		}
	default:
	}
}

// checkNotForgotten: whatever has not ended has somebody who will go on with it.
func (m modelChecker) checkNotForgotten(b *store.Build, byID map[string]*store.Build, attempts map[string]modelAttempt) {
	a := attempts[store.AttemptName(b.GetId(), b.GetAttempt())]
	alive := a.Attempt != nil && !a.Ended
	var why string
	switch state := b.GetState(); {
	case b.HasJobs() && !store.Ended(state), b.IsJob() && state == schedulerv1.Build_STATE_WAITING:
		return // checkJobs
	}
	approved := b.GetApprovedBy()
	if b.IsJob() {
		approved = byID[b.GetPartOf()].GetApprovedBy()
	}
	switch b.GetState() {
	case schedulerv1.Build_STATE_QUEUED:
		if b.Due.IsZero() {
			why = "is never due"
		}
	case schedulerv1.Build_STATE_WAITING:
		if alive || b.GetMessage() == "" || b.GetReason() == schedulerv1.Build_REASON_UNSPECIFIED {
			why = "has begun, or does not say for what"
		}
	case schedulerv1.Build_STATE_STARTING:
		if !alive || (b.Due.IsZero() && (!a.Placed || a.Deadline.IsZero())) {
			why = "has no lease and no deadline"
		}
	case schedulerv1.Build_STATE_RUNNING:
		if !alive || a.Deadline.IsZero() || a.RunnerID == "" {
			why = "has no runner or no deadline"
		}
	case schedulerv1.Build_STATE_BLOCKED:
		if !b.GetFork() && (!b.GetNeedsApproval() || approved != "") || alive || b.GetAttempt() > 0 {
			why = "is no fork's, and no deploy that waits for somebody, or has begun"
		}
	default:
		if !store.Ended(b.GetState()) || b.GetEndTime() == nil || alive {
			why = "has not come to its end"
		}
	}
	if b.GetFork() && approved == "" && (b.GetAttempt() > 0 || b.GetState() == schedulerv1.Build_STATE_QUEUED) {
		why = "is a fork's that nobody approved"
	}
	if why != "" {
		m.t.Errorf("build %s is %v and %s", b.GetId(), b.GetState(), why)
	}
	if by := b.GetSupersededBy(); by != "" && byID[by] == nil {
		m.t.Errorf("build %s was superseded by %s, which is not there", b.GetId(), by)
	}
}

// checkEnvironments: one deploy at a time, the others wait for a reason.
func (m modelChecker) checkEnvironments(builds []*store.Build, byID map[string]*store.Build, attempts map[string]modelAttempt) {
	for _, e := range m.environments() {
		var at, line []string
		for _, b := range builds {
			if b.IsJob() || b.GetEnvironment() != e.Name || b.GetRepository().GetId() != e.RepositoryID || store.Ended(b.GetState()) {
				continue
			}
			if b.HeldBack() { // it is not in line yet
				continue
			}
			if b.GetState() == schedulerv1.Build_STATE_WAITING {
				line = append(line, b.GetId())
			} else {
				at = append(at, b.GetId())
			}
			if _, message := e.BlockedBy(b); b.GetState() == schedulerv1.Build_STATE_WAITING && message != b.GetMessage() {
				m.t.Errorf("build %s says %q, it is %q", b.GetId(), b.GetMessage(), message)
			}
		}
		if len(at) > 1 || (len(at) == 1 && at[0] != e.Holder) {
			m.t.Errorf("%s of %d: %v are being deployed, %q has it", e.Name, e.RepositoryID, at, e.Holder)
		}
		if e.Holder == "" && len(line) > 0 && e.FrozenSince.IsZero() {
			m.t.Errorf("%s of %d is free, %v wait", e.Name, e.RepositoryID, line)
		}
		if holder := byID[e.Holder]; holder != nil && store.Ended(holder.GetState()) && !leaving(holder, attempts) {
			m.t.Errorf("%s of %d is held by build %s, which is over", e.Name, e.RepositoryID, e.Holder)
		}
		for name, c := range m.engine.containers {
			if c.atWork() && deploysTo(c.build) == fmt.Sprintf("%s of %d", e.Name, e.RepositoryID) && store.WholeID(c.build.GetId()) != e.Holder {
				m.t.Errorf("%s is at work in %s of %d, which %q has", name, e.Name, e.RepositoryID, e.Holder)
			}
		}
		if newest := byID[e.Newest]; newest != nil {
			if where := deploysTo(newest); mergeOf(newest.GetSha()) != m.frontier[where] {
				m.t.Errorf("%s: the newest is %s, it was merge%d", where, newest.GetSha(), m.frontier[where])
			}
		}
	}
}

// leaving reports whether containers of a build that has ended are still to be
// removed.
func leaving(b *store.Build, attempts map[string]modelAttempt) bool {
	for _, a := range attempts {
		if store.WholeID(a.BuildID) == b.GetId() && a.stopping {
			return true
		}
	}
	return false
}

// checkPress: one press, one reopening and one new base has builds made once,
// whichever deliveries tell of it.
func (m modelChecker) checkPress(e *eventv1.Event, d *eventv1.Decision) {
	if d.GetReason() != eventv1.Reason_REASON_BUILT && d.GetReason() != eventv1.Reason_REASON_BLOCKED {
		return
	}
	what := fmt.Sprintf("all checks of %s at %v", e.GetCheckSuite().GetHeadSha(), e.GetCheckSuite().GetUpdateTime().AsTime())
	if run := e.GetCheckRun(); run != nil {
		what = "a rerun of " + run.GetExternalId()
	}
	if p := pull(e); p != nil {
		what = fmt.Sprintf("%s of %d#%d at %v", e.GetAction(), e.GetRepository().GetId(), p.GetNumber(), p.GetUpdateTime().AsTime())
	}
	if by := m.presses[what]; by != "" && by != e.GetDeliveryId() {
		m.t.Errorf("%s and %s had something built, where %s is one: %v", by, e.GetDeliveryId(), what, d)
	}
	m.presses[what] = e.GetDeliveryId()
	for _, b := range m.builds() {
		if slices.Contains(d.GetBuildIds(), b.GetId()) {
			m.asked[contentOf(b)] = true
		}
	}
}

// checkDecisions: what was said to be built is there.
func (m modelChecker) checkDecisions(byID map[string]*store.Build) {
	for delivery, d := range m.decisions {
		if slices.ContainsFunc(d.GetBuildIds(), func(id string) bool { return byID[id] == nil }) {
			m.t.Errorf("%s: %v, which is not there", delivery, d)
		}
	}
}
