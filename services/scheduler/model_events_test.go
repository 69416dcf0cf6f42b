package scheduler

import (
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// work makes events, in the order in which they happen.
func (m *model) work() {
	at := noon.Add(time.Duration(m.pulls+m.merges+len(m.pending)+len(m.delivered)) * time.Second)
	repositoryID := 1 + m.random.Int64N(m.repositories)
	var e *eventv1.Event
	switch kind := m.random.IntN(10); {
	case kind < 5 || m.deploys: // merged
		m.merges++
		base := "main"
		if kind == 0 && !m.deploys {
			base = "production"
		}
		e = mergedInto(int32(1000+m.merges), base, fmt.Sprintf("merge%d", m.merges))
	case kind == 9: // the merge queue has a group, or gives one up
		action := "checks_requested"
		if m.groups > 0 && m.random.IntN(2) == 0 {
			action = "destroyed"
		} else {
			m.groups++
		}
		group := 1 + m.random.IntN(m.groups)
		e = happened("merge_group", action, &eventv1.MergeGroupEvent{
			HeadSha: fmt.Sprintf("group%d", group), HeadRef: fmt.Sprintf("%smain/%d", trigger.QueueRef, group), BaseRef: "main",
		})
		e.DeliveryId = fmt.Sprintf("%s-%d-%d", action, group, len(m.pending)+len(m.delivered))
		e.Repository.Id, e.Repository.Name = repositoryID, fmt.Sprintf("shop-%d", repositoryID)
		m.pending = append(m.pending, e)
		return
	case kind == 5 || m.pulls == 0:
		m.pulls++
		e = opened(int32(m.pulls), fmt.Sprintf("head%d-0", m.pulls))
		repositoryID = int64(m.pulls)%m.repositories + 1
	default:
		number := 1 + m.random.IntN(m.pulls)
		repositoryID = int64(number)%m.repositories + 1
		before := fmt.Sprintf("head%d-%d", number, m.heads[number])
		m.heads[number]++
		e = synchronize(before, fmt.Sprintf("head%d-%d", number, m.heads[number]), at)
		switch kind {
		case 6:
			if m.random.IntN(2) == 0 {
				m.heads[number]--
				e = mark(m, number, before, at)
			}
		case 7:
			e.Action, e.DeliveryId = "closed", "closed-"+before
			pull(e).Open = false
			if m.random.IntN(2) == 0 { // it comes back as it was
				m.heads[number]--
				e.Action, e.DeliveryId = "reopened", fmt.Sprintf("reopened-%s-%d", before, len(m.pending)+len(m.delivered))
				pull(e).Open, pull(e).Head.Sha, e.GetPullRequest().Before = true, before, ""
			}
		case 8: // what it goes into
			m.heads[number]--
			base := []string{"main", "production", "feature"}[m.random.IntN(3)]
			e = rebased("main", base, at)
			e.DeliveryId = fmt.Sprintf("edited-%s-%d", before, len(m.pending)+len(m.delivered))
			pull(e).Head.Sha = before
		}
		pull(e).Number = int32(number)
	}
	pull(e).UpdateTime, pull(e).Labels = timestamppb.New(at), m.labels[pull(e).GetNumber()]
	e = of(repositoryID, e)
	if pull(e).GetNumber()%3 == 0 && !pull(e).GetMerged() { // a stranger's fork
		e = fromFork("eve", e)
	}
	m.pending = append(m.pending, e)
}

func (m *model) deliver() {
	if len(m.pending) == 0 {
		return
	}
	n := m.random.IntN(min(m.delay, len(m.pending)))
	e := m.pending[n]
	m.pending = slices.Delete(m.pending, n, n+1)
	m.delivered = append(m.delivered, e)
	m.receive(e)
}

func (m *model) redeliver() {
	if len(m.delivered) == 0 {
		return
	}
	e := proto.CloneOf(m.delivered[m.random.IntN(len(m.delivered))])
	if m.random.IntN(2) == 0 {
		e.DeliveryId += "-again"
	}
	m.receive(e)
}

func (m *model) receive(e *eventv1.Event) {
	answer, err := m.service.ReceiveEvent(m.t.Context(), &schedulerv1.ReceiveEventRequest{Event: e})
	if err != nil {
		m.t.Errorf("receive %s: %v", e.GetDeliveryId(), err)
		return
	}
	m.notef("%s: %s %v", e.GetDeliveryId(), answer.GetDecision().GetText(), answer.GetDecision().GetBuildIds())
	if before := m.decisions[e.GetDeliveryId()]; before != nil && answer.GetDecision().GetReason() != before.GetReason() {
		m.t.Errorf("%s was decided %v, now %v", e.GetDeliveryId(), before, answer.GetDecision())
	}
	m.decisions[e.GetDeliveryId()] = answer.GetDecision()
	if e.GetCheckRun() != nil || e.GetCheckSuite() != nil || e.GetAction() == "reopened" || e.GetAction() == "edited" {
		modelChecker{m}.checkPress(e, answer.GetDecision())
	}
	modelChecker{m}.checkMark(e, answer.GetDecision())
}

// press presses a button at some build's check run, or at all checks of its
// commit; or somebody sends an earlier press again, as another delivery.
func (m *model) press() {
	builds := m.builds()
	if len(builds) == 0 {
		return
	}
	if len(m.pressed) > 0 && m.random.IntN(2) == 0 {
		e := proto.CloneOf(m.pressed[m.random.IntN(len(m.pressed))])
		e.DeliveryId += fmt.Sprintf("-replayed-%d", m.steps)
		m.receive(e)
		return
	}
	b := builds[m.random.IntN(len(builds))]
	e := pressedAt(b.GetSha(), b.GetId(), []string{"", "rerun", "cancel", "approve"}[m.random.IntN(4)])
	if m.random.IntN(2) == 0 {
		e = happened("check_suite", "rerequested", &eventv1.CheckSuiteEvent{
			CheckSuiteId: int64(crc32.ChecksumIEEE([]byte(b.GetSha()))), HeadSha: b.GetSha(),
			UpdateTime: timestamppb.New(noon.Add(time.Duration(len(m.delivered)) * time.Second)),
		})
	}
	e.DeliveryId, e.Repository = fmt.Sprintf("press-%d-%s", len(m.delivered), b.GetId()), b.GetRepository()
	m.delivered, m.pressed = append(m.delivered, e), append(m.pressed, e)
	m.receive(e)
}
