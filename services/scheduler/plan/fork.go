package plan

import (
	"context"
	"fmt"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// voucher is the author of a fork's pull request, where the commit is theirs and
// they have write access; "": nobody vouches for it.
func (s *Service) voucher(ctx context.Context, i trigger.Intent) (string, error) {
	responsible := []*eventv1.Account{i.Pull.GetAuthor()}
	if i.Event.GetAction() == "synchronize" {
		responsible = append(responsible, i.Event.GetSender())
	}
	for n, who := range responsible {
		if n > 0 && who.GetLogin() == i.Pull.GetAuthor().GetLogin() {
			continue
		}
		if may, err := s.mayWrite(ctx, i.Event, who); !may || err != nil {
			return "", err
		}
	}
	return i.Pull.GetAuthor().GetLogin(), nil
}

// requireApproval blocks the build of a fork's commit until somebody approves that commit.
// What was decided of a commit stays: neither a new base nor a rerun approves.
func (s *Service) requireApproval(ctx context.Context, t *store.Tx, p prepared, b *store.Build) error {
	if !p.Fork || s.policy.Forks != trigger.ForkApprove {
		return nil
	}
	by, err := t.RecordForkHead(ctx, p.Intent, p.Voucher, p.Event.GetAction() == "synchronize")
	if err != nil {
		return err
	}
	if b.ApprovedBy = by; by == "" {
		b.State, b.Reason = schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_REASON_NEEDS_APPROVAL
		b.Message = "comes from a fork and needs approval: " + wording.Approve(b.GetSha())
	}
	return nil
}

// applyApproval lets a fork's commit run: what waits of it, and what will be built of
// it for the same pull request.
func (s *Service) applyApproval(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	if p.DeploysTo() != "" && !trigger.IsPreview(p.Action) {
		return deploying{s}.approve(ctx, t, p)
	}
	by := p.Event.GetSender().GetLogin()
	before, err := t.RecordForkHead(ctx, p.Intent, "", false)
	if err != nil {
		return nil, err
	}
	all, err := t.BuildsOf(ctx, p.Event.GetRepository().GetId(), p.Pull.GetNumber(), p.Sha, t.Locked)
	if err != nil {
		return nil, err
	}
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_APPROVED, Text: fmt.Sprintf("approved: %s by %s", wording.Short(p.Sha), by)}
	for _, b := range all {
		if b.GetState() != schedulerv1.Build_STATE_BLOCKED {
			continue
		}
		b.State, b.Reason, b.Message = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, ""
		b.ApprovedBy, b.Due = by, t.Now
		if err := s.groups.Enter(ctx, t, b); err != nil {
			return nil, err
		}
		if err := t.SaveBuild(ctx, b); err != nil {
			return nil, err
		}
		if err := (store.Groups{Tx: t}).Join(ctx, b.GetId(), b.Group); err != nil {
			return nil, err
		}
		if err := s.attempts.Open(ctx, t, b); err != nil {
			return nil, err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	if len(decided.GetBuildIds()) == 0 && before != "" {
		return wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "%s was let run already by %s", wording.Short(p.Sha), before), nil
	}
	_, err = t.RecordForkHead(ctx, p.Intent, by, true)
	return decided, err
}
