package plan

import (
	"cmp"
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/concurrency"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// addBuild makes the build of an intent, as far as .forge.yml asks for it.
func (s *Service) addBuild(ctx context.Context, t *store.Tx, p prepared) (*eventv1.Decision, error) {
	if p.outOfReach != nil {
		return p.outOfReach, nil
	}
	b := s.newBuild(ctx, t, p)
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_BUILT, Text: "built", BuildIds: []string{p.id}}
	refuse := func(reason schedulerv1.Build_Reason, why eventv1.Reason, message string) {
		b.State, b.Reason, b.Message, b.EndTime = schedulerv1.Build_STATE_ERRORED, reason, message, b.GetCreateTime()
		decided.Reason, decided.Text = why, message
	}
	switch outcome := p.config.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Absent:
		if p.baseHasConfig {
			refuse(schedulerv1.Build_REASON_CONFIG_ABSENT, eventv1.Reason_REASON_INVALID_CONFIG,
				fmt.Sprintf("no .forge.yml at %s, and %s has one: rebase onto it, or add the file", wording.Short(p.Sha), b.GetBaseRef()))
			break
		}
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NO_CONFIG, Text: "no .forge.yml at " + wording.Short(p.Sha)}, nil
	case *configv1.GetBuildConfigResponse_Invalid:
		b.ConfigProblems = outcome.Invalid.GetProblems()
		refuse(schedulerv1.Build_REASON_CONFIG_INVALID, eventv1.Reason_REASON_INVALID_CONFIG, FirstProblem(outcome.Invalid))
	case *configv1.GetBuildConfigResponse_Forbidden:
		refuse(schedulerv1.Build_REASON_FORBIDDEN, eventv1.Reason_REASON_FORBIDDEN, outcome.Forbidden.GetMessage())
	case *configv1.GetBuildConfigResponse_Config:
		if instead, err := (deploying{s}).admit(ctx, t, p, b); instead != nil || err != nil {
			return instead, err
		}
		if b.GetState() == schedulerv1.Build_STATE_BLOCKED {
			decided.Reason, decided.Text = eventv1.Reason_REASON_BLOCKED, "blocked: "+b.GetMessage()
		}
	default:
		return nil, fmt.Errorf("config answered %T for .forge.yml at %s", outcome, wording.Short(p.Sha))
	}
	if err := p.addWithJobs(ctx, t, s.attempts, b); err != nil || len(trigger.Following(p.file, b.GetEnvironment())) == 0 || store.Ended(b.GetState()) {
		return decided, err
	}
	return decided, store.Deploys{Tx: t}.SaveFile(ctx, b.GetId(), p.file)
}

// admit has a new build wait for what it has to; a decision in its place says why it is
// not made, or ended before it began.
func (s deploying) admit(ctx context.Context, t *store.Tx, p prepared, b *store.Build) (*eventv1.Decision, error) {
	if !trigger.Runs(b.Pipeline()) {
		return s.nothingToRun(ctx, t, p, b)
	}
	if decided := s.unfit(p); decided != nil {
		return decided, nil
	}
	if p.Kind == trigger.Pushed && p.DeploysTo() == "" {
		if decided := trigger.Unwanted(b.Config.GetPush(), p.Ref); decided != nil {
			return decided, nil
		}
	}
	if p.Kind == trigger.ReleasePublished {
		if decided := trigger.UnwantedRelease(b.Config.GetRelease(), p.Event.GetRelease()); decided != nil {
			return decided, nil
		}
	}
	if why := p.SkipAsked(); why != "" {
		return skip(b, schedulerv1.Build_REASON_SKIP_ASKED, eventv1.Reason_REASON_SKIP_ASKED, why), t.AddBuild(ctx, b)
	}
	if p.config.GetNoMatchingPaths() {
		return skip(b, schedulerv1.Build_REASON_NO_MATCHING_PATHS, eventv1.Reason_REASON_NO_MATCHING_PATHS, "no matching paths"), t.AddBuild(ctx, b)
	}
	if p.containedIn != "" {
		return &eventv1.Decision{
			Reason: eventv1.Reason_REASON_ALREADY_CONTAINED, Text: environment.ContainedError{BuildID: p.containedIn}.Error(), BuildIds: []string{p.containedIn},
		}, nil
	}
	if p.Action == schedulerv1.Build_ACTION_STOP { // it takes down what was let run
		if b.GetFork() {
			by, err := t.RecordForkHead(ctx, p.Intent, "", false)
			if b.ApprovedBy = by; err != nil {
				return nil, err
			}
		}
		return nil, s.enter(ctx, t, p, b)
	}
	if err := s.requireApproval(ctx, t, p, b); err != nil || b.GetState() != schedulerv1.Build_STATE_QUEUED {
		return nil, err
	}
	if err := s.enter(ctx, t, p, b); err != nil || b.GetState() != schedulerv1.Build_STATE_QUEUED {
		return nil, err
	}
	newer, err := s.groups.Overtaken(ctx, t, b)
	if err != nil {
		return nil, err
	}
	if newer != nil {
		return skip(b, schedulerv1.Build_REASON_CONCURRENCY, eventv1.Reason_REASON_STALE, concurrency.TookItsPlace(newer)), t.AddBuild(ctx, b)
	}
	return nil, s.groups.Enter(ctx, t, b)
}

// FirstProblem says what is wrong with a file.
func FirstProblem(invalid *configv1.ConfigInvalid) string {
	if len(invalid.GetProblems()) == 0 {
		return ".forge.yml has errors"
	}
	p := invalid.GetProblems()[0]
	return fmt.Sprintf("%s:%d:%d: %s", cmp.Or(p.GetFile(), ".forge.yml"), p.GetLine(), p.GetColumn(), p.GetMessage())
}

// nothingToRun is decided where .forge.yml has no job for the action. A merge
// then counts as deployed.
func (s *Service) nothingToRun(ctx context.Context, t *store.Tx, p prepared, b *store.Build) (*eventv1.Decision, error) {
	decided := wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing to run for %s in .forge.yml", trigger.ActionName(p.Action, p.Environment))
	if p.Kind == trigger.Pushed && len(b.Config.GetEnvironments()) > 0 {
		decided.Text += ", and no environment of deploy names what was pushed"
	}
	if p.Kind != trigger.PullRequestMerged {
		return decided, nil
	}
	asked, err := s.environments.AskPromotion(ctx, t, b, p.Pull.GetHtmlUrl())
	if asked {
		decided.Text = fmt.Sprintf("promoted: .forge.yml has no deploy to staging, so %s goes on to %s", b.GetBaseRef(), s.policy.PromotesTo(b.GetRepository()))
	}
	return decided, err
}

// newBuild is the queued build of an intent, not stored yet.
func (s *Service) newBuild(ctx context.Context, t *store.Tx, p prepared) *store.Build {
	b := &store.Build{
		Build: &schedulerv1.Build{
			Id: p.id, Repository: p.Event.GetRepository(), InstallationId: p.Event.GetInstallationId(),
			Action: p.Action, Sha: p.Sha, Ref: p.Ref, Branch: p.HeadBranch(), BaseRef: p.Pull.GetBase().GetRef(),
			PullRequest: p.Pull.GetNumber(), Title: p.Pull.GetTitle(), Actor: p.Event.GetSender().GetLogin(),
			Environment: p.DeploysTo(), Fork: p.Fork, CommitCount: p.Pull.GetCommitCount(), RetryOf: p.retryOf,
			State: schedulerv1.Build_STATE_QUEUED, Context: p.Context(),
			BaseSha: p.Pull.GetBase().GetSha(), BeforeSha: p.BeforeSha(), CommitMessage: p.CommitMessage(),
			Url: s.BuildURL(p.id), Image: p.config.GetConfig().GetImage(),
			CreateTime: timestamppb.New(t.Now), DeliveryId: p.Event.GetDeliveryId(), TraceId: telemetry.TraceID(ctx),
		},
		Config: &configv1.BuildConfig{}, Due: t.Now, Traceparent: telemetry.Traceparent(ctx),
	}
	if b.Schedule = p.Schedule; !p.Time.IsZero() {
		b.ScheduleTime, b.ScheduleNote = timestamppb.New(p.Time), p.Note
	}
	if p.Kind == trigger.Pushed && p.retryOf == "" { // what is run again is as new as its wish
		b.PushTime = p.Event.GetPush().GetPushTime()
	}
	b.Inputs = input.Show(p.inputs)
	b.RemoteBy, b.RemoteBase = p.Remote.GetDifference().GetAuthor(), p.Remote.GetBaseSha()
	if config := p.config.GetConfig(); config != nil {
		b.Config = config
	}
	if distrusted := p.Withheld || s.policy.Distrusts(p.Intent); distrusted || b.GetFork() {
		withhold(b)
		// What repeats it knows no author, and may read other names of secrets.
		b.SecretsWithheld = b.GetSecretsWithheld() || (distrusted && !b.GetFork())
	}
	if proposed := b.GetPullRequest() != 0 && b.GetEnvironment() == "" && b.GetAction() != schedulerv1.Build_ACTION_CLOSED; proposed && b.Config.GetPullRequest().GetTest() == configv1.BuildConfig_PullRequest_TEST_MERGE {
		b.IntoSha = b.GetBaseSha()
	}
	if e := trigger.EnvironmentOf(p.file, p.DeploysTo()); e != nil {
		b.After, b.NeedsApproval, b.Approvers = e.GetAfter(), e.GetApproval(), e.GetApprovers()
	}
	b.EnvironmentUrl = b.Pipeline().GetUrl()
	b.StepCount = int32(len(b.Pipeline().GetCommands())) //nolint:gosec // config bounds it by 500
	return b
}

// withhold takes secrets out of a build, and ports out of a fork's. What is not in
// the build's config can reach its containers by no way.
func withhold(b *store.Build) {
	b.SecretsWithheld = len(b.Config.GetSecrets()) > 0
	b.Config.Secrets = nil
	for _, job := range b.Pipeline().GetJobs() {
		b.SecretsWithheld = b.GetSecretsWithheld() || len(job.GetSecrets()) > 0
		job.Secrets = nil
	}
	if !b.GetFork() {
		return
	}
	b.Config.Ports = nil
	for _, job := range b.Pipeline().GetJobs() {
		job.Ports = nil
	}
}
