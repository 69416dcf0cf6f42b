package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// modelLabel is one that files ask for, now and then.
const modelLabel = "slow"

// mark puts the label on a pull request, or takes it off.
func mark(m *model, number int, sha string, at time.Time) *eventv1.Event {
	e := opened(int32(number), sha)
	if m.labels[int32(number)] == nil {
		e.Action, m.labels[int32(number)] = "labeled", []string{modelLabel}
	} else {
		e.Action = "unlabeled"
		delete(m.labels, int32(number))
	}
	e.GetPullRequest().Label = modelLabel
	e.DeliveryId = fmt.Sprintf("%s-%d-%d", e.GetAction(), number, len(m.pending)+len(m.delivered))
	m.markedAt[int32(number)] = at
	return e
}

// rulesOf is what the files of a story say of pull requests.
func rulesOf(random *rand.Rand) *configv1.BuildConfig_PullRequest {
	said := &configv1.BuildConfig_PullRequest{}
	if random.IntN(4) == 0 {
		said.Labels = []string{modelLabel}
	}
	if random.IntN(4) == 0 {
		said.Branches = []string{"main", "f*"}
	}
	if random.IntN(2) == 0 {
		said.Closed = &configv1.Pipeline{Commands: modelCommands()}
	}
	return said
}

// GetPullRequest is config's: GitHub knows of each label at once.
func (m modelSiblings) GetPullRequest(_ context.Context, req *configv1.GetPullRequestRequest, _ ...grpc.CallOption) (*configv1.GetPullRequestResponse, error) {
	return &configv1.GetPullRequestResponse{PullRequest: &eventv1.PullRequest{
		Number: req.GetNumber(), Open: true, Labels: m.labels[req.GetNumber()], UpdateTime: timestamppb.New(m.markedAt[req.GetNumber()]),
	}}, nil
}

// checkMark: what a label, or an end, has built is asked for; no two deliveries of one
// end tear down twice.
func (m modelChecker) checkMark(e *eventv1.Event, d *eventv1.Decision) {
	ends := e.GetAction() == "closed"
	if !ends && e.GetPullRequest().GetLabel() == "" {
		return
	}
	for _, b := range m.builds() {
		switch {
		case !slices.Contains(d.GetBuildIds(), b.GetId()) || b.GetDeliveryId() != e.GetDeliveryId():
			continue
		case !ends:
			m.asked[contentOf(b)] = true
			continue
		case b.GetAction() != schedulerv1.Build_ACTION_CLOSED:
			continue
		}
		m.asked[contentOf(b)] = true
		what := fmt.Sprintf("the end of %d#%d at %v", e.GetRepository().GetId(), pull(e).GetNumber(), pull(e).GetUpdateTime().AsTime())
		if by := m.presses[what]; by != "" && by != e.GetDeliveryId() {
			m.t.Errorf("%s and %s tear down, where %s is one: %v", by, e.GetDeliveryId(), what, d)
		}
		m.presses[what] = e.GetDeliveryId()
	}
}
