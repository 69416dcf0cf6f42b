package plan

import (
	"context"
	"fmt"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// asking builds what somebody asks for by hand, with values for its inputs.
type asking struct{ *Service }

// checked holds what was given against what the file asks for. Of a build that is to be
// run once more, the same is given again.
func (s asking) checked(ctx context.Context, p prepared) (prepared, *eventv1.Decision, error) {
	if p.config.GetConfig().GetManual() == nil { // which is decided as for any action
		return p, nil, nil
	}
	given := p.Inputs
	if p.Kind == trigger.RebuildAsked {
		old, err := store.ReadBuild(ctx, s.store.DB.Read(), p.Build, "")
		if err != nil {
			return p, nil, err
		}
		var problem string
		if given, problem, err = s.inputs.Again(ctx, old); err != nil || problem != "" {
			return p, wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "%s", problem), err
		}
	}
	var err error
	p.inputs, err = input.Check(p.config.GetConfig().GetManual(), given)
	switch {
	case err != nil && p.Kind == trigger.RebuildAsked: // no caller could mend it
		return p, wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "%v", err), nil
	case err != nil:
		return p, nil, err
	}
	if p.sealed, err = s.inputs.Seal(p.id, p.inputs); err != nil {
		return p, nil, fmt.Errorf("inputs: %w", err)
	}
	return p, nil, nil
}

// apply makes the build. Each call makes one of its own: nobody can tell whether the same
// values mean the same.
func (s asking) apply(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	decided, err := s.addBuild(ctx, t, p)
	if err != nil || !slices.Contains(decided.GetBuildIds(), p.id) {
		return decided, err
	}
	return decided, store.AddInputs(ctx, t, p.id, p.sealed)
}

// applyAgain runs one once more, unless that is under way or was done.
func (s asking) applyAgain(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	all, err := t.BuildsOf(ctx, p.Event.GetRepository().GetId(), 0, p.Sha, "")
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		same := b.GetId() == p.Build || b.GetRetryOf() == p.Build
		if !same || b.GetAction() != schedulerv1.Build_ACTION_MANUAL {
			continue
		}
		switch {
		case !store.Ended(b.GetState()):
			decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "%s is being built already, as %s", wording.Short(p.Sha), b.GetId())
			decided.BuildIds = []string{b.GetId()}
			return decided, nil
		case p.Event.GetCheckRun() != nil && b.GetRetryOf() == p.Build:
			decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "build %s was run again already, as %s", p.Build, b.GetId())
			decided.BuildIds = []string{b.GetId()}
			return decided, nil
		case b.GetId() == p.Build && p.Again.Failed && b.GetState() == schedulerv1.Build_STATE_PASSED:
			decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "nothing failed in build %s", b.GetId())
			decided.BuildIds = []string{b.GetId()}
			return decided, nil
		}
	}
	p.retryOf = p.Build
	return s.apply(ctx, t, p, pull)
}
