package scheduler

import (
	"fmt"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func (m *model) builds() []*build {
	all, err := collect(m.t.Context(), m.db.Read(), scanBuild, `SELECT `+buildColumns+` FROM builds ORDER BY number`)
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

func (m *model) environments() []*environment {
	all, err := collect(m.t.Context(), m.db.Read(), scanEnvironment, `SELECT `+environmentColumns+` FROM environments`)
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

type modelAttempt struct {
	*attempt
	stopping bool
}

func (m *model) attempts() map[string]modelAttempt {
	all, err := collect(m.t.Context(), m.db.Read(), func(row scanner) (modelAttempt, error) {
		a := &attempt{}
		var contact, deadline, stop int64
		err := row.Scan(&a.buildID, &a.number, &a.placed, &a.runnerID, &a.sequence, &a.logSize, &contact, &deadline, &a.ended, &stop)
		a.deadline = dueTime(deadline)
		return modelAttempt{a, stop != never}, err
	}, `SELECT `+attemptColumns+`, stop_time FROM attempts`)
	if err != nil {
		m.t.Fatal(err)
	}
	byName := map[string]modelAttempt{}
	for _, a := range all {
		byName[a.name()] = a
	}
	return byName
}

// check holds the store, and what really happened, against the promises.
func (m *model) check() {
	m.steps++
	builds, attempts := m.builds(), m.attempts()
	byID, content := map[string]*build{}, map[string]string{}
	for _, b := range builds {
		byID[b.GetId()] = b
		if m.ended[b.GetId()] != 0 && m.ended[b.GetId()] != b.GetState() {
			m.t.Errorf("build %s ended as %v and is %v", b.GetId(), m.ended[b.GetId()], b.GetState())
		}
		if ended(b.GetState()) && m.ended[b.GetId()] == 0 {
			m.ended[b.GetId()] = b.GetState()
			m.built++
			m.checkEnd(b)
		}
		m.checkContent(content, b)
	}
	for _, b := range builds {
		m.checkNotForgotten(b, byID, attempts)
	}
	live := map[string]bool{}
	for name, a := range attempts {
		if b := byID[a.buildID]; !a.ended && (ended(b.GetState()) || a.number != b.GetAttempt()) {
			m.t.Errorf("attempt %s is live, its build is %v in attempt %d", name, b.GetState(), b.GetAttempt())
		}
		if !a.ended {
			live[name] = true
		}
	}
	if len(live) > m.service.Capacity {
		m.t.Errorf("%v have places, capacity %d", live, m.service.Capacity)
	}
	m.checkEnvironments(builds, byID, attempts)
	m.checkDecisions(byID)
}

// checkContent: no event is built twice, and what somebody wants again not at once.
func (m *model) checkContent(seen map[string]string, b *build) {
	if b.GetState() == schedulerv1.Build_STATE_CANCELLED || b.GetRollBackOf() != "" {
		return
	}
	what := contentOf(b)
	if m.asked[what] {
		if ended(b.GetState()) {
			return
		}
		what += " and has not ended"
	}
	if seen[what] != "" {
		m.t.Errorf("builds %s and %s are of one commit for one purpose", seen[what], b.GetId())
	}
	seen[what] = b.GetId()
}

func contentOf(b *build) string {
	return fmt.Sprint(b.GetRepository().GetId(), b.GetPullRequest(), b.GetSha(), b.GetAction())
}

// checkEnd: nothing uncertain turns green, or red by the user's fault.
func (m *model) checkEnd(b *build) {
	ran := m.engine.gone[attemptName(b.GetId(), b.GetAttempt())]
	switch b.GetState() {
	case schedulerv1.Build_STATE_PASSED:
		if ran == nil || ran.failed || ran.executed != modelJob {
			m.t.Errorf("build %s passed, and what ran was %+v", b.GetId(), ran)
		}
		if where := deploysTo(b); where != "" && b.GetRollBackOf() == "" {
			m.frontier[where] = max(m.frontier[where], mergeOf(b.GetSha()))
		}
	case schedulerv1.Build_STATE_FAILED:
		if ran == nil || !ran.failed {
			m.t.Errorf("build %s failed, and what ran was %+v", b.GetId(), ran)
		}
	default:
	}
}

// checkNotForgotten: whatever has not ended has somebody who will go on with it.
func (m *model) checkNotForgotten(b *build, byID map[string]*build, attempts map[string]modelAttempt) {
	a := attempts[attemptName(b.GetId(), b.GetAttempt())]
	alive := a.attempt != nil && !a.ended
	var why string
	switch b.GetState() {
	case schedulerv1.Build_STATE_QUEUED:
		if b.due.IsZero() {
			why = "is never due"
		}
	case schedulerv1.Build_STATE_WAITING:
		if alive || b.GetMessage() == "" || b.GetReason() == schedulerv1.Build_REASON_UNSPECIFIED {
			why = "has begun, or does not say for what"
		}
	case schedulerv1.Build_STATE_STARTING:
		if !alive || (b.due.IsZero() && (!a.placed || a.deadline.IsZero())) {
			why = "has no lease and no deadline"
		}
	case schedulerv1.Build_STATE_RUNNING:
		if !alive || a.deadline.IsZero() || a.runnerID == "" {
			why = "has no runner or no deadline"
		}
	case schedulerv1.Build_STATE_BLOCKED:
		if !b.GetFork() || alive || b.GetAttempt() > 0 {
			why = "is no fork's, or has begun"
		}
	default:
		if !ended(b.GetState()) || b.GetEndTime() == nil || alive {
			why = "has not come to its end"
		}
	}
	if b.GetFork() && b.GetApprovedBy() == "" && (b.GetAttempt() > 0 || b.GetState() == schedulerv1.Build_STATE_QUEUED) {
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
func (m *model) checkEnvironments(builds []*build, byID map[string]*build, attempts map[string]modelAttempt) {
	for _, e := range m.environments() {
		var at, line []string
		for _, b := range builds {
			if b.GetEnvironment() != e.name || b.GetRepository().GetId() != e.repositoryID || ended(b.GetState()) {
				continue
			}
			if b.GetState() == schedulerv1.Build_STATE_WAITING {
				line = append(line, b.GetId())
			} else {
				at = append(at, b.GetId())
			}
			if _, message := e.holdsBack(b); b.GetState() == schedulerv1.Build_STATE_WAITING && message != b.GetMessage() {
				m.t.Errorf("build %s says %q, it is %q", b.GetId(), b.GetMessage(), message)
			}
		}
		if len(at) > 1 || (len(at) == 1 && at[0] != e.holder) {
			m.t.Errorf("%s of %d: %v are being deployed, %q has it", e.name, e.repositoryID, at, e.holder)
		}
		if e.holder == "" && len(line) > 0 && e.frozen.IsZero() {
			m.t.Errorf("%s of %d is free, %v wait", e.name, e.repositoryID, line)
		}
		if holder := byID[e.holder]; holder != nil && ended(holder.GetState()) && !attempts[attemptName(holder.GetId(), holder.GetAttempt())].stopping {
			m.t.Errorf("%s of %d is held by build %s, which is over", e.name, e.repositoryID, e.holder)
		}
		for name, c := range m.engine.containers {
			if c.atWork() && deploysTo(c.build) == fmt.Sprintf("%s of %d", e.name, e.repositoryID) && c.build.GetId() != e.holder {
				m.t.Errorf("%s is at work in %s of %d, which %q has", name, e.name, e.repositoryID, e.holder)
			}
		}
		if newest := byID[e.newest]; newest != nil {
			if where := deploysTo(newest); mergeOf(newest.GetSha()) != m.frontier[where] {
				m.t.Errorf("%s: the newest is %s, it was merge%d", where, newest.GetSha(), m.frontier[where])
			}
		}
	}
}

// checkPress: one press has builds made once, whichever deliveries tell of it.
func (m *model) checkPress(e *eventv1.Event, d *eventv1.Decision) {
	if d.GetReason() != eventv1.Reason_REASON_BUILT && d.GetReason() != eventv1.Reason_REASON_BLOCKED {
		return
	}
	what := fmt.Sprintf("all checks of %s at %v", e.GetCheckSuite().GetHeadSha(), e.GetCheckSuite().GetUpdateTime().AsTime())
	if run := e.GetCheckRun(); run != nil {
		what = "a rerun of " + run.GetExternalId()
	}
	if by := m.presses[what]; by != "" && by != e.GetDeliveryId() {
		m.t.Errorf("%s and %s had something built of one press: %v", by, e.GetDeliveryId(), d)
	}
	m.presses[what] = e.GetDeliveryId()
	for _, b := range m.builds() {
		if slices.Contains(d.GetBuildIds(), b.GetId()) {
			m.asked[contentOf(b)] = true
		}
	}
}

// checkDecisions: what was said to be built is there.
func (m *model) checkDecisions(byID map[string]*build) {
	for delivery, d := range m.decisions {
		if slices.ContainsFunc(d.GetBuildIds(), func(id string) bool { return byID[id] == nil }) {
			m.t.Errorf("%s: %v, which is not there", delivery, d)
		}
	}
}
