package plan

import (
	"context"
	"fmt"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// applied does what an intent asks for, in a transaction, and decides about it. What a
// person asked for, and each deploy, goes into the audit log.
func applied(ctx context.Context, s *Service, t *store.Tx, event *eventv1.Event, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	decided, err := s.appliers()[p.Kind](ctx, t, p, pull)
	if err != nil {
		return nil, err
	}
	return decided, note(ctx, t, originOf(event), p, decided)
}

// note writes down what was done of an intent, if anything was.
func note(ctx context.Context, t *store.Tx, origin schedulerv1.AuditEntry_Origin, p prepared, decided *eventv1.Decision) error {
	action := actionOf(p)
	if action == schedulerv1.AuditEntry_ACTION_UNSPECIFIED || !did(decided) {
		return nil
	}
	entry := &schedulerv1.AuditEntry{
		Action: action, Actor: p.Event.GetSender().GetLogin(), Origin: origin,
		Repository: wording.FullName(p.Event.GetRepository()), Environment: p.DeploysTo(), Detail: decided.GetText(),
	}
	if action == schedulerv1.AuditEntry_ACTION_DEPLOY {
		entry.Detail = cause(p)
	}
	if p.Action == schedulerv1.Build_ACTION_STOP {
		entry.Detail = "what takes it down was asked for again"
	}
	if p.Remote != nil {
		entry.Detail = fmt.Sprintf("remote run of the working tree of %s on %s: %s", p.Remote.GetDifference().GetAuthor(), wording.Short(p.Remote.GetBaseSha()), decided.GetText())
	}
	for _, id := range decided.GetBuildIds() {
		entry.BuildId = id
		if err := audit.Add(ctx, t, p.Event.GetRepository().GetId(), entry); err != nil {
			return err
		}
	}
	if len(decided.GetBuildIds()) > 0 {
		return nil
	}
	return audit.Add(ctx, t, p.Event.GetRepository().GetId(), entry) // a fork's commit of which nothing is built yet
}

// actionOf is what somebody asks for by an intent; unspecified where that is nothing the
// audit log tells of.
func actionOf(p prepared) schedulerv1.AuditEntry_Action {
	again := p.Build != "" || p.Pull.GetNumber() != 0
	switch {
	case p.Kind == trigger.ApprovalGiven:
		return schedulerv1.AuditEntry_ACTION_APPROVE
	case p.Kind == trigger.CancelAsked:
		return schedulerv1.AuditEntry_ACTION_CANCEL
	case (p.Kind == trigger.RebuildAsked || p.Kind == trigger.RemoteAsked) && again:
		return schedulerv1.AuditEntry_ACTION_RETRY
	case p.DeploysTo() != "":
		return schedulerv1.AuditEntry_ACTION_DEPLOY
	case p.Kind == trigger.RebuildAsked, p.Kind == trigger.ManualAsked, p.Kind == trigger.RemoteAsked:
		return schedulerv1.AuditEntry_ACTION_RUN
	}
	return schedulerv1.AuditEntry_ACTION_UNSPECIFIED
}

// noteEnd writes down that a preview ends, by what event, if anything of it was there or on
// its way: stop takes it down, and cancelled are the deploys that are not to come any more.
// news is that it was wanted until now.
func noteEnd(ctx context.Context, t *store.Tx, event *eventv1.Event, e *store.Environment, stop *eventv1.Decision, cancelled []string, news bool, message string) error {
	entry := &schedulerv1.AuditEntry{
		Action: schedulerv1.AuditEntry_ACTION_TAKE_DOWN, Actor: event.GetSender().GetLogin(), Origin: schedulerv1.AuditEntry_ORIGIN_EVENT,
		Repository: wording.FullName(event.GetRepository()), Environment: e.Name, Detail: message,
	}
	switch {
	case did(stop):
		entry.BuildId = stop.GetBuildIds()[0]
	case len(cancelled) > 0:
		entry.BuildId = cancelled[0]
	case e.Deployed != "" && (e.Holder == "" || news && e.Holder == e.Deployed): // nothing is run for it, and it leaves the lists once it is free
		entry.BuildId = e.Deployed
	default:
		return nil
	}
	return audit.Add(ctx, t, event.GetRepository().GetId(), entry)
}

// cause is what brought a deploy about.
func cause(p prepared) string {
	by, sha, number := " by "+p.Event.GetSender().GetLogin(), wording.Short(p.Sha), p.Pull.GetNumber()
	switch {
	case p.Kind == trigger.PullRequestMerged:
		return fmt.Sprintf("merge of #%d as %s%s", number, sha, by)
	case p.Kind == trigger.Pushed:
		return "push of " + sha + by
	case p.Kind == trigger.ReleasePublished:
		return "release of " + sha + by
	case trigger.IsPreview(p.Action):
		return fmt.Sprintf("%s of #%d passed its tests", sha, number)
	case p.Kind == trigger.DeployCame:
		return "a deploy of " + sha + by
	default:
		return sha + " was asked for" + by
	}
}

// did reports whether a decision is that something was done.
func did(decided *eventv1.Decision) bool {
	switch decided.GetReason() {
	case eventv1.Reason_REASON_APPROVED, eventv1.Reason_REASON_CANCELLED:
		return true
	case eventv1.Reason_REASON_DUPLICATE, eventv1.Reason_REASON_ALREADY_CONTAINED, eventv1.Reason_REASON_STALE:
		return false
	default:
		return len(decided.GetBuildIds()) > 0
	}
}

// originOf is how an event came about; unspecified where it is a call.
func originOf(event *eventv1.Event) schedulerv1.AuditEntry_Origin {
	switch {
	case event.GetIssueComment() != nil:
		return schedulerv1.AuditEntry_ORIGIN_COMMENT
	case event.GetCheckRun() != nil, event.GetCheckSuite() != nil:
		return schedulerv1.AuditEntry_ORIGIN_BUTTON
	case event.GetDeliveryId() != "":
		return schedulerv1.AuditEntry_ORIGIN_EVENT
	}
	return schedulerv1.AuditEntry_ORIGIN_UNSPECIFIED
}
