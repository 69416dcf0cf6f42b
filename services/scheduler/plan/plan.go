package plan

import (
	"cmp"
	"context"
	"encoding/base32"
	"fmt"
	"io"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/concurrency"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/input"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// Deps is what a planner needs.
type Deps struct {
	Store        *store.Store
	Policy       trigger.Policy
	Environments *environment.Service
	Attempts     *attempt.Service
	Inputs       *input.Service
	Groups       *concurrency.Service
	// Config is asked for what GitHub knows.
	Config grpc.ClientConnInterface
	// ExternalURL is where people reach Forge.
	ExternalURL string
	// Remembered is how long it is known what was decided; 0 is for good.
	Remembered time.Duration
	Tracer     trace.Tracer
	Random     io.Reader
}

// Service decides what is built.
type Service struct {
	store         *store.Store
	policy        trigger.Policy
	environments  *environment.Service
	attempts      *attempt.Service
	inputs        *input.Service
	groups        *concurrency.Service
	Configs       configv1.BuildConfigServiceClient
	Pulls         configv1.PullRequestServiceClient
	Commits       configv1.CommitServiceClient
	Collaborators configv1.CollaboratorServiceClient
	externalURL   string
	remembered    time.Duration
	tracer        trace.Tracer
	now           func() time.Time
	random        io.Reader
}

// New returns what decides about events and calls.
func New(d Deps) *Service {
	s := &Service{
		store: d.Store, policy: d.Policy, environments: d.Environments, attempts: d.Attempts, inputs: d.Inputs, groups: d.Groups,
		Configs:       configv1.NewBuildConfigServiceClient(d.Config),
		Pulls:         configv1.NewPullRequestServiceClient(d.Config),
		Commits:       configv1.NewCommitServiceClient(d.Config),
		Collaborators: configv1.NewCollaboratorServiceClient(d.Config),
		externalURL:   strings.TrimSuffix(d.ExternalURL, "/"), remembered: d.Remembered,
		tracer: d.Tracer, now: d.Store.Now, random: d.Random,
	}
	d.Environments.Follow, d.Environments.Tested = deploying{s}.follow, previewing{s}.tested
	return s
}

// Decide says what becomes of an event, and does what it asks for.
func (s *Service) Decide(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	row, decided := trigger.Find(event)
	if decided != nil {
		return decided, nil
	}
	decided, err := store.Decision(ctx, s.store.DB.Read(), event)
	if decided != nil || err != nil {
		return decided, sqldb.Kind(err)
	}
	ctx, span := s.tracer.Start(ctx, "plan")
	defer span.End()
	switch {
	case row.Kind == trigger.InstallationChanged:
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted: config keeps the installations"}, nil
	case row.Read != nil:
		i, decided := row.Read(s.policy, event)
		intents := s.policy.Ended(row.Kind, event)
		if decided == nil {
			intents = append([]trigger.Intent{i}, intents...)
		}
		if len(intents) == 0 {
			return decided, nil
		}
		done, err := s.Apply(ctx, event, intents)
		return noted(span)(cmp.Or(done, decided), err)
	default:
		return noted(span)(s.askingDeciders()[row.Kind](ctx, event))
	}
}

// askingDeciders decide about the events for which GitHub has to be asked, and do
// what they ask for.
func (s *Service) askingDeciders() map[trigger.Kind]func(context.Context, *eventv1.Event) (*eventv1.Decision, error) {
	return map[trigger.Kind]func(context.Context, *eventv1.Event) (*eventv1.Decision, error){
		trigger.ButtonPressed: s.decideButton, trigger.Commented: s.decideComment,
	}
}

// noted has a span say what was decided.
func noted(span trace.Span) func(*eventv1.Decision, error) (*eventv1.Decision, error) {
	return func(decided *eventv1.Decision, err error) (*eventv1.Decision, error) {
		span.SetAttributes(attribute.String("forge.decision", decided.GetText()), attribute.StringSlice("forge.builds", decided.GetBuildIds()))
		return decided, err
	}
}

// prepared is an intent with what had to be asked for elsewhere.
type prepared struct {
	trigger.Intent
	config  *configv1.GetBuildConfigResponse // nil where nothing is built
	id      string                           // of the build, where one is made
	retryOf string                           // the build it repeats, where that was asked for
	// baseHasConfig: the head has no .forge.yml, and the base has one that has
	// something for it.
	baseHasConfig bool
	// containedIn is the build that brought this commit, or a newer one, to where
	// it is to be deployed; empty where none did.
	containedIn string
	// inputs are what an input of .forge.yml is in a build by hand, and sealed how that
	// is stored.
	inputs []input.Value
	sealed []store.Input
	// file is what the commit, or the default branch, says of all environments; nil for
	// what deploys nothing.
	file *configv1.BuildConfig
	// outOfReach is why nothing of the ref is deployed to the environment; nil where it is.
	outOfReach *eventv1.Decision
	// previews are those that a pull request is to have.
	previews []*configv1.Destination
	// unwanted: nothing is built of the pull request as it is; nil where something is.
	unwanted *unwanted
}

// prepare asks for what a plan needs, before the transaction: GitHub may take its
// time.
func (s *Service) prepare(ctx context.Context, i trigger.Intent) (p prepared, decided *eventv1.Decision, err error) {
	p = prepared{Intent: i}
	if i.Aimed() {
		if p, decided, err = (aiming{s}).aimed(ctx, p); decided != nil || err != nil {
			return p, decided, err
		}
	}
	if i = p.Intent; !i.Builds() {
		return p, nil, nil
	}
	if trigger.IsPreview(i.Action) {
		return previewing{s}.stored(ctx, p)
	}
	if i.Kind == trigger.ReleasePublished {
		if p, decided, err = (releasing{s}).located(ctx, p); decided != nil || err != nil {
			return p, decided, err
		}
		i = p.Intent
	}
	p.config, err = s.Configs.GetBuildConfig(ctx, WithChange(i, fileOf(i)))
	if fault.Is(err, fault.NotFound) {
		return p, wording.Ignored(eventv1.Reason_REASON_GONE, "%s is gone from GitHub", wording.Short(i.Sha)), nil
	}
	if err != nil {
		return p, nil, fmt.Errorf("read .forge.yml at %s: %w", wording.Short(i.Sha), err)
	}
	if i.Remote != nil {
		p = remoting{s}.located(p)
		i = p.Intent
	}
	if i.Action == schedulerv1.Build_ACTION_SCHEDULE {
		ofSchedule(p.config.GetConfig(), i.Schedule)
	}
	if p, err = (deploying{s}).aimed(ctx, p); err != nil {
		return p, nil, err
	}
	if p, err = (previewing{s}).aimed(ctx, p); err != nil {
		return p, nil, err
	}
	if p.config.GetAbsent() != nil {
		if p.baseHasConfig, err = baseHasConfig(ctx, s.Configs, i); err != nil {
			return p, nil, err
		}
	}
	if p.Message, err = commitMessage(ctx, s.Commits, p); err != nil {
		return p, nil, err
	}
	if trigger.Runs(store.PipelineOf(i.Action, p.config.GetConfig())) {
		p.containedIn = s.environments.ContainedIn(ctx, i)
	}
	if p.Pull, err = s.withLabels(ctx, p); err != nil {
		return p, nil, err
	}
	if p.id, err = s.NewID(); err != nil || i.Action != schedulerv1.Build_ACTION_MANUAL {
		return p, nil, err
	}
	return asking{s}.checked(ctx, p)
}

// fileOf is the file that says what is built: that of the commit, but of a schedule
// that of the default branch.
func fileOf(i trigger.Intent) *configv1.GetBuildConfigRequest {
	req := &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Sha: i.Sha, EventTime: i.Event.GetReceiveTime(),
	}
	if i.Action == schedulerv1.Build_ACTION_SCHEDULE {
		req.Sha, req.Branch = "", i.Event.GetRepository().GetDefaultBranch()
	}
	if i.Remote != nil {
		req.Sha, req.Difference = i.Remote.GetBaseSha(), i.Remote.GetDifference()
	}
	return req
}

// BuildURL is where people see a build.
func (s *Service) BuildURL(id string) string { return s.externalURL + "/builds/" + id }

// NewID is 128 random bits in 26 letters and digits.
func (s *Service) NewID() (string, error) {
	bits := make([]byte, 16)
	if _, err := io.ReadFull(s.random, bits); err != nil {
		return "", fmt.Errorf("random bits for an id: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bits)), nil
}

// apply does what an intent asks for, in a transaction, and decides about it.
type apply func(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error)

// appliers is what is done of each kind.
func (s *Service) appliers() map[trigger.Kind]apply {
	return map[trigger.Kind]apply{
		trigger.PullRequestOffered: s.applyPullRequest, trigger.PullRequestMerged: s.applyPullRequest, trigger.PullRequestClosed: s.applyPullRequest,
		trigger.PullRequestEnded: aiming{s}.applyEnded,
		trigger.GroupRequested:   s.applyGroup, trigger.GroupDestroyed: s.applyGroupDestroyed,
		trigger.Pushed: s.applyOnce, trigger.ReleasePublished: s.applyOnce,
		trigger.RebuildAsked: s.applyRebuild, trigger.CancelAsked: s.applyCancel, trigger.ApprovalGiven: s.applyApproval,
		trigger.ManualAsked: asking{s}.apply, trigger.RemoteAsked: remoting{s}.apply,
	}
}

// applyOnce builds what was not built before.
func (s *Service) applyOnce(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	prior, err := t.SameContent(ctx, p.Intent)
	if err != nil {
		return nil, err
	}
	if prior != nil {
		return duplicate(prior), nil
	}
	return s.addBuild(ctx, t, p)
}

// applyRebuild builds what somebody wants built, unless that is under way. Nothing
// is superseded: it may be an older commit.
func (s *Service) applyRebuild(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	if p.Action == schedulerv1.Build_ACTION_MANUAL {
		return asking{s}.applyAgain(ctx, t, p, pull)
	}
	if trigger.IsPreview(p.Action) {
		return previewing{s}.again(ctx, t, p)
	}
	if trigger.ActionOf(p.Action).Deploys && p.Build != "" {
		newer, err := t.NewerDeploy(ctx, p.Intent)
		if err != nil {
			return nil, err
		}
		if newer != "" {
			return wording.Ignored(eventv1.Reason_REASON_STALE, "build %s is the newer deploy of the same environment: roll back instead", newer), nil
		}
	}
	if p.Schedule != "" {
		unfinished, err := store.Timetable{Tx: t}.UnfinishedOf(ctx, p.Event.GetRepository().GetId(), p.Schedule)
		if unfinished != "" || err != nil {
			return wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "build %s of the same schedule has not ended", unfinished), err
		}
	}
	prior, err := t.NewestContent(ctx, p.Intent)
	switch {
	case err != nil:
		return nil, err
	case prior != nil && p.Event.GetCheckRun() != nil && prior.GetId() != p.Build:
		decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "build %s was run again already, as %s", p.Build, prior.GetId())
		decided.BuildIds = []string{prior.GetId()}
		return decided, nil
	case prior == nil || prior.GetState() == schedulerv1.Build_STATE_CANCELLED:
		p.retryOf = p.Build
		if p.Again.Some() && prior != nil {
			p.retryOf = prior.GetId()
		}
		return s.addBuild(ctx, t, p)
	case !store.Ended(prior.GetState()):
		decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "%s is being built already, as %s", wording.Short(p.Sha), prior.GetId())
		if prior.GetState() == schedulerv1.Build_STATE_BLOCKED {
			decided.Text = fmt.Sprintf("ignored: %s waits for approval, as %s", wording.Short(p.Sha), prior.GetId())
		}
		decided.BuildIds = []string{prior.GetId()}
		return decided, nil
	}
	if p.Again.Failed && prior.GetState() == schedulerv1.Build_STATE_PASSED {
		decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "nothing failed in build %s", prior.GetId())
		decided.BuildIds = []string{prior.GetId()}
		return decided, nil
	}
	p.retryOf = prior.GetId()
	return s.addBuild(ctx, t, p)
}

func duplicate(prior *store.Build) *eventv1.Decision {
	d := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "%s was built already, as %s", wording.Short(prior.GetSha()), prior.GetId())
	d.BuildIds = []string{prior.GetId()}
	return d
}
