package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// LetGo is the intent of somebody, or of an administrator in the name of nobody, who
// lets a deploy go. Whoever it is may be refused, by what GitHub says at this moment.
func LetGo(ctx context.Context, s *Service, event *eventv1.Event, b *store.Build, administers bool) (trigger.Intent, *eventv1.Decision, error) {
	i := Repeat(event, b)
	i.Kind, i.Build = trigger.ApprovalGiven, b.GetId()
	if administers {
		return i, nil, nil
	}
	decided, err := deploying{s}.refused(ctx, event, b, event.GetSender())
	return i, decided, err
}

// refused is a decision against somebody who may not let a deploy go: who has no write
// access any more, or is not among those whom the file of its commit names.
func (s deploying) refused(ctx context.Context, event *eventv1.Event, b *store.Build, who *eventv1.Account) (*eventv1.Decision, error) {
	if decided, err := s.mustWrite(ctx, event, who); decided != nil || err != nil {
		return decided, err
	}
	may := b.GetApprovers()
	if len(may) == 0 || slices.Contains(may, strings.ToLower(who.GetLogin())) {
		return nil, nil //nolint:nilnil // nothing is against it
	}
	member, unread, err := s.inTeam(ctx, event, who, may)
	if member || err != nil {
		return nil, err
	}
	decided := wording.Ignored(eventv1.Reason_REASON_NOT_ALLOWED, "%s is not among those who let deploys to %s go: %s",
		who.GetLogin(), b.GetEnvironment(), strings.Join(may, ", "))
	if unread != "" {
		decided.Text += "; " + unread
	}
	return decided, nil
}

// inTeam reports whether somebody is in one of the teams among approvers; unread is why a
// team could not be read.
func (s deploying) inTeam(ctx context.Context, event *eventv1.Event, who *eventv1.Account, approvers []string) (member bool, unread string, _ error) {
	for _, team := range approvers {
		if !strings.Contains(team, "/") {
			continue
		}
		answer, err := s.Collaborators.GetTeamMembership(ctx, &configv1.GetTeamMembershipRequest{
			Repository: event.GetRepository(), InstallationId: event.GetInstallationId(), Team: team, Login: who.GetLogin(),
		})
		switch {
		case fault.Is(err, fault.Conflict):
			unread = err.Error()
		case err != nil:
			return false, "", err
		case answer.GetMember():
			return true, "", nil
		}
	}
	return false, unread, nil
}

// pressed reads the button at the check of a deploy.
func (s deploying) pressed(ctx context.Context, event *eventv1.Event, b *store.Build) ([]trigger.Intent, *eventv1.Decision, error) {
	if b.IsJob() {
		return nil, wording.Ignored(eventv1.Reason_REASON_DEPLOY_IGNORED, "a deploy is let go as a whole"), nil
	}
	i, decided, err := LetGo(ctx, s.Service, event, b, false)
	return []trigger.Intent{i}, decided, err
}

// read reads a comment that lets go what a pull request was merged as.
func (s deploying) read(ctx context.Context, event *eventv1.Event, environment string) (trigger.Intent, *eventv1.Decision, error) {
	if !trigger.IsEnvironment(environment) {
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "name what is deployed to: /forge deploy and an environment, such as production"), nil
	}
	number := event.GetIssueComment().GetNumber()
	pull, err := s.pullRequest(ctx, event, number)
	switch {
	case fault.Is(err, fault.NotFound):
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_GONE, "#%d is gone from GitHub", number), nil
	case err != nil:
		return trigger.Intent{}, nil, err
	case !pull.GetMerged():
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "#%d is not merged, and what was merged alone is deployed", number), nil
	}
	b, err := store.NewestDeploy(ctx, s.store.DB.Read(), event.GetRepository().GetId(), environment, number, pull.GetMergeCommitSha())
	if err != nil {
		return trigger.Intent{}, nil, fmt.Errorf("deploy of #%d to %s: %w", number, environment, err)
	}
	if b == nil {
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing of #%d waits to be deployed to %s", number, environment), nil
	}
	by := asked(event, event.GetIssueComment().GetAuthor())
	i, decided, err := LetGo(ctx, s.Service, by, b, false)
	return i, decided, err
}

// asked is an event whose sender is who asks for something by it.
func asked(event *eventv1.Event, who *eventv1.Account) *eventv1.Event {
	return &eventv1.Event{
		DeliveryId: event.GetDeliveryId(), Repository: event.GetRepository(), InstallationId: event.GetInstallationId(), ReceiveTime: event.GetReceiveTime(), Sender: who,
	}
}

// approve lets a deploy go that waits for that, and supersedes those before it that
// nobody has let go.
func (s deploying) approve(ctx context.Context, t *store.Tx, p prepared) (*eventv1.Decision, error) {
	b, err := t.Build(ctx, p.Build)
	if err != nil {
		return nil, err
	}
	if b.GetReason() != schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL || b.GetState() != schedulerv1.Build_STATE_BLOCKED {
		decided := wording.Ignored(eventv1.Reason_REASON_STALE, "%s", notBlocked(b))
		decided.BuildIds = []string{b.GetId()}
		return decided, nil
	}
	b.ApprovedBy, b.ApproveTime = p.Event.GetSender().GetLogin(), timestamppb.New(t.Now)
	if err := s.environments.Enter(ctx, t, b); err != nil {
		return nil, err
	}
	if err := t.SaveBuild(ctx, b); err != nil {
		return nil, err
	}
	if b.GetState() == schedulerv1.Build_STATE_QUEUED {
		err = s.attempts.Open(ctx, t, b)
	}
	return &eventv1.Decision{
		Reason: eventv1.Reason_REASON_APPROVED, BuildIds: []string{b.GetId()},
		Text: fmt.Sprintf("approved: %s goes to %s, by %s", wording.Short(b.GetSha()), b.GetEnvironment(), b.GetApprovedBy()),
	}, err
}

// notBlocked says why a deploy cannot be let go.
func notBlocked(b *store.Build) string {
	switch {
	case b.GetReason() == schedulerv1.Build_REASON_SUPERSEDED:
		return fmt.Sprintf("build %s was superseded by build %s", b.GetId(), b.GetSupersededBy())
	case b.GetApprovedBy() != "":
		return fmt.Sprintf("build %s was let go already by %s", b.GetId(), b.GetApprovedBy())
	case b.GetReason() == schedulerv1.Build_REASON_DEPLOYS_AFTER:
		return fmt.Sprintf("build %s cannot be let go yet: %s", b.GetId(), b.GetMessage())
	default:
		return fmt.Sprintf("build %s does not wait for approval", b.GetId())
	}
}
