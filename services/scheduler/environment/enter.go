package environment

import (
	"context"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// Enter gives a deploy that is about to be stored its environment. Or it has it wait:
// for the deploy that it comes after, then for somebody who lets it go, then in line.
func (s *Service) Enter(ctx context.Context, t *store.Tx, b *store.Build) error {
	name := b.GetEnvironment()
	if name == "" {
		return nil
	}
	e, err := t.Environment(ctx, b.GetRepository().GetId(), name)
	if err != nil {
		return err
	}
	e.Repository = wording.FullName(b.GetRepository())
	if !trigger.IsPreview(b.GetAction()) { // whatever was called so before
		e.PullRequest = 0
	}
	comes, err := s.comes(ctx, t, b)
	switch {
	case err != nil:
		return err
	case !comes:
		b.State, b.Reason, b.Due = schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_DEPLOYS_AFTER, time.Time{}
		b.Message = wording.Short(b.GetSha()) + " is not deployed to " + b.GetAfter() + " yet"
		return t.SaveEnvironment(ctx, e)
	case b.GetNeedsApproval() && b.GetApprovedBy() == "":
		b.State, b.Reason, b.Due = schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL, time.Time{}
		b.Message = approvalText(b)
		return t.SaveEnvironment(ctx, e)
	}
	b.State, b.Due = schedulerv1.Build_STATE_QUEUED, t.Now
	if b.Reason, b.Message = e.BlockedBy(b); b.GetMessage() != "" {
		b.State, b.Due = schedulerv1.Build_STATE_WAITING, time.Time{}
	} else {
		e.Holder = b.GetId()
	}
	if err := t.SaveEnvironment(ctx, e); err != nil {
		return err
	}
	return s.supersede(ctx, t, b)
}

// comes reports whether a deploy's commit has been deployed to where it is to be
// deployed before.
func (*Service) comes(ctx context.Context, t *store.Tx, b *store.Build) (bool, error) {
	if b.GetAfter() == "" {
		return true, nil
	}
	return store.Deploys{Tx: t}.Deployed(ctx, b.GetRepository().GetId(), b.GetAfter(), b.GetSha())
}

// approvalText says who may let a deploy go, and how, within a commit status.
func approvalText(b *store.Build) string {
	const most = 3
	text := "needs approval"
	if who := b.GetApprovers(); len(who) > most {
		text += " by one of " + wording.Count(len(who), "person")
	} else if len(who) > 0 {
		text += " by " + strings.Join(who, " or ")
	}
	if b.GetPullRequest() != 0 {
		text += ": /forge deploy " + b.GetEnvironment()
	}
	return text
}

// supersede cancels the older deploys to the environment of one that was let go which
// nobody has let go yet.
func (s *Service) supersede(ctx context.Context, t *store.Tx, by *store.Build) error {
	older, err := store.HeldBack(ctx, t, by.GetRepository().GetId(), by.GetEnvironment(), t.Locked)
	if err != nil {
		return err
	}
	older = slices.DeleteFunc(older, func(b *store.Build) bool {
		return b.GetId() == by.GetId() || (by.Number != 0 && b.Number > by.Number)
	})
	for _, b := range older {
		b.SupersededBy = by.GetId()
		if err := s.Cancel(ctx, t, b, schedulerv1.Build_REASON_SUPERSEDED, "Superseded by "+wording.Short(by.GetSha())); err != nil {
			return err
		}
	}
	return nil
}

// RecordDeployed stores what a deploy that has passed put where, and lets those go
// that come after it: after tests, the deploys to previews.
func (s *Service) RecordDeployed(ctx context.Context, t *store.Tx, b *store.Build) error {
	name := b.GetEnvironment()
	if name == "" {
		return s.Tested(ctx, t, b)
	}
	e, err := t.Environment(ctx, b.GetRepository().GetId(), name)
	if err != nil {
		return err
	}
	if b.GetAction() == schedulerv1.Build_ACTION_STOP {
		return s.takenDown(ctx, t, e)
	}
	e.Deployed = b.GetId()
	if b.GetRollBackOf() == "" {
		e.Newest = b.GetId()
	}
	if err := t.SaveEnvironment(ctx, e); err != nil || b.GetRollBackOf() != "" || trigger.IsPreview(b.GetAction()) {
		return err
	}
	after, err := store.Deploys{Tx: t}.After(ctx, b)
	if err != nil {
		return err
	}
	for _, next := range after {
		if err := s.Enter(ctx, t, next); err != nil {
			return err
		}
		if err := t.SaveBuild(ctx, next); err != nil {
			return err
		}
		if next.GetState() != schedulerv1.Build_STATE_QUEUED {
			continue
		}
		if err := s.Open(ctx, t, next); err != nil {
			return err
		}
	}
	return s.Follow(ctx, t, b)
}
