package plan

import (
	"context"
	"fmt"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// applyPullRequest does what the event of a pull request asks for, unless something newer
// is known of it.
func (s *Service) applyPullRequest(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	// Another delivery of it would have been a duplicate, or stale: only a delivery's body is signed.
	if s.remembered > 0 && pull.Forgotten(p.Intent, t.Now.Add(-s.remembered)) {
		return wording.Ignored(eventv1.Reason_REASON_STALE, "what is told of #%d is older than what is kept here", pull.Number), nil
	}
	stale := pull.Stale(p.Intent)
	// What was merged stays merged, whatever came later.
	if stale && p.Kind != trigger.PullRequestMerged {
		prior, err := t.SameContent(ctx, p.Intent)
		if err != nil {
			return nil, err
		}
		if prior != nil {
			return duplicate(prior), nil
		}
		return wording.Ignored(eventv1.Reason_REASON_STALE, "something newer is known of #%d", pull.Number), nil
	}
	later := p.Pull.GetUpdateTime().AsTime().After(pull.Updated)
	repeated := pull.Repeats(p.Intent)
	prior, err := t.Stopped(ctx, p.Intent, pull)
	if err != nil {
		return nil, err
	}
	if prior != nil {
		return duplicate(prior), nil
	}
	if !stale {
		pull.Update(p.Intent)
		if err := t.SavePullRequest(ctx, pull); err != nil {
			return nil, err
		}
		if err := store.ShowAgain(ctx, t, p.Event.GetRepository().GetId(), pull.Number); err != nil {
			return nil, err
		}
	}
	decided, err := aiming{s}.take(ctx, t, p, pull, later, repeated)
	if err != nil || p.Kind != trigger.PullRequestOffered {
		return decided, err
	}
	besides, err := previewing{s}.follow(ctx, t, p, repeated)
	return alongside(decided, besides), err
}

// take builds what the event of a pull request asks for, and cancels what it makes
// pointless.
func (s aiming) take(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest, later, repeated bool) (*eventv1.Decision, error) {
	if p.Kind == trigger.PullRequestClosed {
		return s.cancelTests(ctx, t, p, cancellation{
			reason: schedulerv1.Build_REASON_PULL_REQUEST_CLOSED, message: fmt.Sprintf("#%d was closed", pull.Number), because: "closed without a merge",
		})
	}
	if p.Kind == trigger.PullRequestOffered && !p.Builds() {
		return s.leave(ctx, t, p)
	}
	if decided, err := takesNothing(ctx, t, p.Intent); decided != nil || err != nil {
		return decided, err
	}
	p, err := wantedAgain(ctx, t, p, repeated)
	if err != nil {
		return nil, err
	}
	build := s.applyOnce
	if p.retryOf != "" {
		build = func(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
			return s.addBuild(ctx, t, p)
		}
	}
	decided, err := build(ctx, t, p, pull)
	if err == nil && p.Kind == trigger.PullRequestOffered {
		err = s.supersede(ctx, t, p.Intent, later, decided)
	}
	return decided, err
}

// takesNothing decides about a label that was taken off, or a pull request that became
// a draft, where it is built nevertheless: what was built of it stays.
func takesNothing(ctx context.Context, t *store.Tx, i trigger.Intent) (*eventv1.Decision, error) {
	if action := i.Event.GetAction(); action != "unlabeled" && action != "converted_to_draft" {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	prior, err := t.NewestContent(ctx, i)
	if prior == nil || err != nil {
		return nil, err
	}
	return duplicate(prior), nil
}

// wantedAgain names the build of the same content that is to be repeated: one that
// did not pass, of a pull request that was opened again, one that was held
// against another base, and one that left out a job for want of a label that is there
// now. A person who does any of these wants to see what comes of it.
func wantedAgain(ctx context.Context, t *store.Tx, p prepared, repeated bool) (prepared, error) {
	if p.Kind != trigger.PullRequestOffered || repeated {
		return p, nil
	}
	prior, err := t.NewestContent(ctx, p.Intent)
	if err != nil || prior == nil || prior.GetState() == schedulerv1.Build_STATE_CANCELLED {
		return p, err
	}
	switch state := prior.GetState(); {
	case p.Event.GetAction() == "reopened" && store.Ended(state) && state != schedulerv1.Build_STATE_PASSED,
		p.Event.GetAction() == "edited" && prior.GetBaseRef() != p.Pull.GetBase().GetRef():
		p.retryOf = prior.GetId()
		return p, nil
	}
	gains, err := p.gainsJob(ctx, t, prior)
	if gains {
		p.retryOf, p.Again.Failed = prior.GetId(), true
	}
	return p, err
}

// leave cancels the tests of a pull request that nothing is built of as it is now. Who
// stands for a fork's commit is kept for when something is.
func (s *Service) leave(ctx context.Context, t *store.Tx, p prepared) (*eventv1.Decision, error) {
	why := p.unwanted
	if p.Fork && s.policy.Forks == trigger.ForkApprove && why.build == schedulerv1.Build_REASON_UNWANTED {
		if _, err := t.RecordForkHead(ctx, p.Intent, p.Voucher, p.Event.GetAction() == "synchronize"); err != nil {
			return nil, err
		}
	}
	decided, err := s.cancelTests(ctx, t, p, cancellation{reason: why.build, message: why.text, because: why.text})
	if len(decided.GetBuildIds()) > 0 || err != nil {
		return decided, err
	}
	return wording.Ignored(why.decision, "%s", why.text), nil
}

// supersede cancels the tests of the pull request that the new head, or the new
// base, makes pointless. Within one second only the direct predecessor is known
// to be older.
func (s *Service) supersede(ctx context.Context, t *store.Tx, i trigger.Intent, later bool, decided *eventv1.Decision) error {
	unfinished, err := t.UnfinishedTests(ctx, i.Event.GetRepository().GetId(), i.Pull.GetNumber())
	if err != nil {
		return err
	}
	kept := strings.Join(decided.GetBuildIds(), "") // at most one so far
	for _, b := range unfinished {
		before := i.Event.GetPullRequest().GetBefore()
		// What is deployed is cancelled once the next is to be.
		if b.GetAction() == schedulerv1.Build_ACTION_PREVIEW || b.GetId() == kept || (!later && b.GetSha() != before && b.GetSha() != i.Sha) {
			continue
		}
		b.SupersededBy = kept
		by := "Superseded by " + wording.Short(i.Sha)
		if b.GetSha() == i.Sha { // and only the base, or a label, is another
			by = "Superseded: base branch is " + i.Pull.GetBase().GetRef()
			if i.Event.GetPullRequest().GetLabel() != "" {
				by = "Superseded: the labels changed"
			}
		}
		if err := s.attempts.Cancel(ctx, t, b, schedulerv1.Build_REASON_SUPERSEDED, by); err != nil {
			return err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	return nil
}
