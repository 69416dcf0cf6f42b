package scheduler

import (
	"context"
	"fmt"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// voucher is the author of a fork's pull request, where the commit is theirs and
// they have write access; "": nobody vouches for it.
func (s *Service) voucher(ctx context.Context, i intent) (string, error) {
	responsible := []*eventv1.Account{i.pull.GetAuthor()}
	if i.event.GetAction() == "synchronize" {
		responsible = append(responsible, i.event.GetSender())
	}
	for n, who := range responsible {
		if n > 0 && who.GetLogin() == i.pull.GetAuthor().GetLogin() {
			continue
		}
		if may, err := s.mayWrite(ctx, i.event, who); !may || err != nil {
			return "", err
		}
	}
	return i.pull.GetAuthor().GetLogin(), nil
}

// gate blocks the build of a fork's commit until somebody approves that commit.
// What was decided of a commit stays: neither a new base nor a rerun approves.
func (s *Service) gate(ctx context.Context, t *tx, p planned, b *build) error {
	if !p.fork || s.ForkPolicy != forkApprove {
		return nil
	}
	by, err := t.vouch(ctx, p.intent, p.voucher, p.event.GetAction() == "synchronize")
	if err != nil {
		return err
	}
	if b.ApprovedBy = by; by == "" {
		b.State, b.Reason = schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_REASON_NEEDS_APPROVAL
		b.Message = "comes from a fork and needs approval"
	}
	return nil
}

// approve lets a fork's commit run: what waits of it, and what will be built of
// it for the same pull request.
func (s *Service) approve(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	by := p.event.GetSender().GetLogin()
	before, err := t.vouch(ctx, p.intent, "", false)
	if err != nil {
		return nil, err
	}
	all, err := t.buildsOf(ctx, p.event.GetRepository().GetId(), p.pull.GetNumber(), p.sha, t.locked)
	if err != nil {
		return nil, err
	}
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_APPROVED, Text: fmt.Sprintf("approved: %s by %s", short(p.sha), by)}
	for _, b := range all {
		if b.GetState() != schedulerv1.Build_STATE_BLOCKED {
			continue
		}
		b.State, b.Reason, b.Message = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, ""
		b.ApprovedBy, b.due = by, t.now
		if err := t.saveBuild(ctx, b); err != nil {
			return nil, err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	if len(decided.GetBuildIds()) == 0 && before != "" {
		return ignored(eventv1.Reason_REASON_DUPLICATE, "%s was let run already by %s", short(p.sha), before), nil
	}
	_, err = t.vouch(ctx, p.intent, by, true)
	return decided, err
}

// vouch remembers a fork's commit, and who stands for it, "" being nobody; with
// again that counts too where the commit is known already. It returns who does.
func (t *tx) vouch(ctx context.Context, i intent, voucher string, again bool) (by string, err error) {
	key := []any{i.event.GetRepository().GetId(), i.pull.GetNumber(), i.sha}
	err = t.exec(ctx, `INSERT INTO fork_heads (repository_id, pull_request, sha, approved_by) VALUES ($1, $2, $3, $4)
		ON CONFLICT DO NOTHING`, append(key, voucher)...)
	if err == nil && again {
		err = t.exec(ctx, `UPDATE fork_heads SET approved_by = $4
			WHERE repository_id = $1 AND pull_request = $2 AND sha = $3 AND approved_by = ''`, append(key, voucher)...)
	}
	if err != nil {
		return "", err
	}
	err = t.QueryRowContext(ctx, `SELECT approved_by FROM fork_heads
		WHERE repository_id = $1 AND pull_request = $2 AND sha = $3`, key...).Scan(&by)
	return by, err
}
