package plan

import (
	"context"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// buttons is what those at a check run ask for.
func buttons() map[eventv1.Button]trigger.Kind {
	return map[eventv1.Button]trigger.Kind{
		eventv1.Button_BUTTON_RERUN: trigger.RebuildAsked, eventv1.Button_BUTTON_CANCEL: trigger.CancelAsked, eventv1.Button_BUTTON_APPROVE: trigger.ApprovalGiven,
		eventv1.Button_BUTTON_RERUN_FAILED: trigger.RebuildAsked,
	}
}

// decideButton does what a press of a button asks for.
func (s *Service) decideButton(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	intents, decided, err := s.readButton(ctx, event)
	switch {
	case err != nil:
		return nil, err
	case decided == nil:
		return s.Apply(ctx, event, intents)
	}
	// GitHub had its part in it, and may answer otherwise another time.
	err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.AddDecision(ctx, event, decided, nil)
	})
	return decided, err
}

// readButton reads a button that somebody pressed at a check run, which names
// its build, or at all checks of a commit.
func (s *Service) readButton(ctx context.Context, event *eventv1.Event) ([]trigger.Intent, *eventv1.Decision, error) {
	if event.GetRepository().GetId() == 0 {
		return nil, trigger.Malformed("a button without a repository"), nil
	}
	wish, found, decided, err := s.pressedButton(ctx, event)
	if decided != nil || err != nil {
		return nil, decided, err
	}
	if wish == trigger.ApprovalGiven && deploys(found[0]) {
		return deploying{s}.pressed(ctx, event, found[0])
	}
	tests := slices.DeleteFunc(found, deploys)
	if len(tests) == 0 {
		return nil, wording.Ignored(eventv1.Reason_REASON_DEPLOY_IGNORED, "deploys are steered by administrators, not by buttons"), nil
	}
	if decided, err := s.mustWrite(ctx, event, event.GetSender()); decided != nil || err != nil {
		return nil, decided, err
	}
	var intents []trigger.Intent
	for _, b := range tests {
		i := Repeat(event, b)
		i.Kind, i.Build = wish, b.GetId()
		if b.IsJob() { // the button is at the check of a job, and the wish is its build's
			i.Build, i.Again.Job = b.GetPartOf(), b.ConfigJob().GetName()
		}
		i.Again.Failed = event.GetCheckRun().GetButton() == eventv1.Button_BUTTON_RERUN_FAILED
		switch wish {
		case trigger.ApprovalGiven:
			decided = s.needsApproval(b.GetFork(), "build "+b.GetId())
		case trigger.RebuildAsked:
			decided = s.policy.ForkDecision(b.GetFork())
		default: // what is stopped may be of any kind
		}
		if decided != nil {
			return nil, decided, nil
		}
		intents = append(intents, i)
	}
	return intents, nil, nil
}

// pressedButton is what is wanted, and of which builds.
func (s *Service) pressedButton(ctx context.Context, event *eventv1.Event) (trigger.Kind, []*store.Build, *eventv1.Decision, error) {
	pool, repository := s.store.DB.Read(), event.GetRepository().GetId()
	if suite := event.GetCheckSuite(); suite != nil {
		found, err := store.NewestBuilds(ctx, pool, repository, suite.GetHeadSha())
		// What was asked for by hand is asked for again at its own check, or by hand.
		// A preview follows from the tests.
		found = slices.DeleteFunc(found, func(b *store.Build) bool {
			return b.GetAction() == schedulerv1.Build_ACTION_MANUAL || trigger.IsPreview(b.GetAction())
		})
		if err == nil && len(found) == 0 {
			return 0, nil, wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing was built of %s", wording.Short(suite.GetHeadSha())), nil
		}
		return trigger.RebuildAsked, found, nil, sqldb.Kind(err)
	}
	run := event.GetCheckRun()
	wish := trigger.RebuildAsked
	if event.GetAction() == "requested_action" {
		if wish = buttons()[run.GetButton()]; wish == 0 {
			return 0, nil, wording.Ignored(eventv1.Reason_REASON_ACTION_IGNORED, "there is no button %q", run.GetRequestedAction()), nil
		}
	}
	b, err := store.ReadBuild(ctx, pool, run.GetExternalId(), "")
	if fault.Is(err, fault.NotFound) || (err == nil && (b.GetRepository().GetId() != repository || b.GetSha() != run.GetHeadSha())) {
		return 0, nil, wording.Ignored(eventv1.Reason_REASON_GONE, "the check run is of no build that is known here"), nil
	}
	return wish, []*store.Build{b}, nil, err
}

// replayed decides about a press at all checks of a commit that was heard of
// before, by another delivery: only a delivery's body is signed. A press at a
// single check run needs no such memory, since it names the build.
func replayed(ctx context.Context, t *store.Tx, event *eventv1.Event, of []prepared) (*eventv1.Decision, error) {
	suite := event.GetCheckSuite()
	if suite.GetUpdateTime() == nil {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	known, err := t.RecordSuite(ctx, event)
	if !known || err != nil {
		return nil, err
	}
	decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "all checks of %s were run again already", wording.Short(suite.GetHeadSha()))
	for _, p := range of {
		decided.BuildIds = append(decided.BuildIds, p.Build)
	}
	return decided, nil
}

// Repeat is the intent that a build was made for, asked for once more.
func Repeat(event *eventv1.Event, b *store.Build) trigger.Intent {
	return trigger.Intent{
		Event: event, Kind: trigger.RebuildAsked, Action: b.GetAction(), Environment: b.GetEnvironment(), Sha: b.GetSha(), Ref: b.GetRef(), Fork: b.GetFork(),
		Schedule: b.GetSchedule(), Withheld: b.GetSecretsWithheld(), Message: b.GetCommitMessage(), Before: b.GetBeforeSha(), Branch: b.GetBranch(),
		Pull: &eventv1.PullRequest{
			Number: b.GetPullRequest(), Title: b.GetTitle(), CommitCount: b.GetCommitCount(),
			Base: &eventv1.PullRequestBranch{Ref: b.GetBaseRef(), Sha: b.GetBaseSha()},
		},
	}
}

// deploys reports whether a build is an administrator's matter. A preview is that of
// whoever may write.
func deploys(b *store.Build) bool {
	return b.GetEnvironment() != "" && !trigger.IsPreview(b.GetAction())
}
