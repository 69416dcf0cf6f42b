package scheduler

import (
	"cmp"
	"context"
	"encoding/base32"
	"fmt"
	"io"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// ReceiveEvent plans what an event asks for.
func (s *Service) ReceiveEvent(ctx context.Context, req *schedulerv1.ReceiveEventRequest) (*schedulerv1.ReceiveEventResponse, error) {
	event := req.GetEvent()
	if event.GetDeliveryId() == "" {
		return nil, fault.New(fault.Invalid, "an event needs the id of its delivery")
	}
	decided, err := s.decide(ctx, event)
	if err != nil {
		return nil, fmt.Errorf("delivery %s: %w", event.GetDeliveryId(), err)
	}
	s.Log.InfoContext(ctx, "event decided", "delivery", event.GetDeliveryId(), "event", event.GetName(),
		"action", event.GetAction(), "decision", decided.GetText(), "builds", decided.GetBuildIds())
	return &schedulerv1.ReceiveEventResponse{Decision: decided}, nil
}

func (s *Service) decide(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	m, decided := momentOf(event)
	if decided != nil {
		return decided, nil
	}
	decided, err := decision(ctx, s.store.db.Read(), event)
	if decided != nil || err != nil {
		return decided, sqldb.Kind(err)
	}
	ctx, span := s.tracer.Start(ctx, "plan")
	defer span.End()
	var intents []intent
	switch m {
	case installed:
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: "noted: config keeps the installations"}, nil
	case pressed:
		intents, decided, err = s.intendButton(ctx, event)
	case commented:
		intents = make([]intent, 1)
		intents[0], decided, err = s.intendComment(ctx, event)
	default:
		intents = make([]intent, 1)
		if intents[0], decided = s.intend(event, m); decided != nil {
			return decided, nil
		}
	}
	switch {
	case err != nil:
		return nil, err
	case decided == nil:
		decided, err = s.carryOut(ctx, event, intents)
	default: // GitHub had its part in it, and may answer otherwise another time
		err = s.write(ctx, func(ctx context.Context, t *tx) error {
			return t.addDecision(ctx, event, decided, s.answerTo(event, decided))
		})
	}
	span.SetAttributes(attribute.String("forge.decision", decided.GetText()), attribute.StringSlice("forge.builds", decided.GetBuildIds()))
	return decided, err
}

// planned is an intent with what had to be asked for elsewhere.
type planned struct {
	intent
	config  *configv1.GetBuildConfigResponse // nil where nothing is built
	id      string                           // of the build, where one is made
	retryOf string                           // the build it repeats, where that was asked for
	// containedIn is the build that brought this commit, or a newer one, to where
	// it is to be deployed; empty where none did.
	containedIn string
}

// carryOut does what an event, or a call, asks for, and decides about it.
func (s *Service) carryOut(ctx context.Context, event *eventv1.Event, intents []intent) (*eventv1.Decision, error) {
	var all []planned
	for _, i := range intents {
		p, decided, err := s.prepare(ctx, i)
		if decided != nil || err != nil {
			return decided, err
		}
		all = append(all, p)
	}
	var decided *eventv1.Decision
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		var pulls []*pullRequest
		for _, p := range all {
			pull, err := t.pullRequest(ctx, event.GetRepository().GetId(), p.pull.GetNumber())
			if err != nil {
				return err
			}
			pulls = append(pulls, pull)
		}
		var err error
		if decided, err = decision(ctx, t, event); decided != nil || err != nil {
			return err
		}
		if decided, err = t.replayed(ctx, event, all); decided != nil || err != nil {
			return err
		}
		for n, p := range all {
			of, err := s.plan(ctx, t, p, pulls[n])
			if err != nil {
				return err
			}
			decided = join(decided, of)
		}
		if event.GetDeliveryId() == "" {
			return nil
		}
		return t.addDecision(ctx, event, decided, s.answerTo(event, decided))
	})
	return decided, err
}

// join makes one decision of several. What was done counts before what was not.
func join(a, b *eventv1.Decision) *eventv1.Decision {
	if a == nil {
		return b
	}
	if len(a.GetBuildIds()) == 0 || (a.GetReason() == eventv1.Reason_REASON_DUPLICATE && len(b.GetBuildIds()) > 0) {
		a, b = b, a
	}
	a.BuildIds = append(a.BuildIds, b.GetBuildIds()...)
	return a
}

// prepare asks for what a plan needs, before the transaction: GitHub may take its
// time.
func (s *Service) prepare(ctx context.Context, i intent) (p planned, decided *eventv1.Decision, err error) {
	p = planned{intent: i}
	if !i.builds() {
		return p, nil, nil
	}
	if i.moment == offered && i.fork && s.ForkPolicy == forkApprove {
		if p.voucher, err = s.voucher(ctx, i); err != nil {
			return p, nil, err
		}
	}
	p.config, err = s.configs.GetBuildConfig(ctx, withChange(i, &configv1.GetBuildConfigRequest{
		Repository: i.event.GetRepository(), InstallationId: i.event.GetInstallationId(), Sha: i.sha, EventTime: i.event.GetReceiveTime(),
	}))
	if fault.Is(err, fault.NotFound) {
		return p, ignored(eventv1.Reason_REASON_GONE, "%s is gone from GitHub", short(i.sha)), nil
	}
	if err != nil {
		return p, nil, fmt.Errorf("read .forge.yml at %s: %w", short(i.sha), err)
	}
	if len(jobOf(i.action, p.config.GetConfig()).GetCommands()) > 0 {
		p.containedIn = s.containedIn(ctx, i)
	}
	p.id, err = s.newID()
	return p, nil, err
}

// buildURL is where people see a build.
func (s *Service) buildURL(id string) string { return s.ExternalURL + "/builds/" + id }

// newID is 128 random bits in 26 letters and digits.
func (s *Service) newID() (string, error) {
	bits := make([]byte, 16)
	if _, err := io.ReadFull(s.Random, bits); err != nil {
		return "", fmt.Errorf("random bits for an id: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bits)), nil
}

// plan carries out an intent.
func (s *Service) plan(ctx context.Context, t *tx, p planned, pull *pullRequest) (*eventv1.Decision, error) {
	switch p.moment {
	case grouped:
		return s.planGroup(ctx, t, p)
	case ungrouped:
		return s.endGroup(ctx, t, p)
	case pushed:
		return s.planOnce(ctx, t, p)
	case asked:
		return s.planAgain(ctx, t, p)
	case halted:
		return s.halt(ctx, t, p)
	case approved:
		return s.approve(ctx, t, p)
	default:
		return s.planPull(ctx, t, p, pull)
	}
}

// planPull does what the event of a pull request asks for, unless something newer
// is known of it.
func (s *Service) planPull(ctx context.Context, t *tx, p planned, pull *pullRequest) (*eventv1.Decision, error) {
	stale := pull.stale(p.intent)
	// What was merged stays merged, whatever came later.
	if stale && p.moment != merged {
		prior, err := t.sameContent(ctx, p.intent)
		if err != nil {
			return nil, err
		}
		if prior != nil {
			return duplicate(prior), nil
		}
		return ignored(eventv1.Reason_REASON_STALE, "something newer is known of #%d", pull.number), nil
	}
	later := p.pull.GetUpdateTime().AsTime().After(pull.updated)
	prior, err := t.stopped(ctx, p.intent, pull)
	if err != nil {
		return nil, err
	}
	if prior != nil {
		return duplicate(prior), nil
	}
	if !stale {
		pull.learn(p.intent)
		if err := t.savePullRequest(ctx, pull); err != nil {
			return nil, err
		}
	}
	if p.moment == dropped {
		return s.cancelTests(ctx, t, p, stopping{
			reason: schedulerv1.Build_REASON_PULL_REQUEST_CLOSED, message: fmt.Sprintf("#%d was closed", pull.number), because: "closed without a merge",
		})
	}
	if p.moment == offered && !p.builds() {
		return s.leaveBase(ctx, t, p)
	}
	decided, err := s.planOnce(ctx, t, p)
	if err == nil && p.moment == offered {
		err = s.supersede(ctx, t, p.intent, later, decided)
	}
	return decided, err
}

// leaveBase cancels the tests of a pull request whose base is one that nothing is
// built for.
func (s *Service) leaveBase(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	why := "base branch is " + p.pull.GetBase().GetRef()
	decided, err := s.cancelTests(ctx, t, p, stopping{reason: schedulerv1.Build_REASON_BASE_CHANGED, message: why, because: why})
	if len(decided.GetBuildIds()) > 0 || err != nil {
		return decided, err
	}
	return ignored(eventv1.Reason_REASON_BRANCH_IGNORED, "%s", why), nil
}

// planOnce builds what was not built before.
func (s *Service) planOnce(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	prior, err := t.sameContent(ctx, p.intent)
	if err != nil {
		return nil, err
	}
	if prior != nil {
		return duplicate(prior), nil
	}
	return s.planBuild(ctx, t, p)
}

// planAgain builds what somebody wants built, unless that is under way. Nothing
// is superseded: it may be an older commit.
func (s *Service) planAgain(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	if purposeOf(p.action).environment != "" && p.build != "" {
		newer, err := t.newerDeploy(ctx, p.intent)
		if err != nil {
			return nil, err
		}
		if newer != "" {
			return ignored(eventv1.Reason_REASON_STALE, "build %s is the newer deploy of the same environment: roll back instead", newer), nil
		}
	}
	prior, err := t.newestContent(ctx, p.intent)
	switch {
	case err != nil:
		return nil, err
	case prior != nil && p.event.GetCheckRun() != nil && prior.GetId() != p.build:
		decided := ignored(eventv1.Reason_REASON_DUPLICATE, "build %s was run again already, as %s", p.build, prior.GetId())
		decided.BuildIds = []string{prior.GetId()}
		return decided, nil
	case prior == nil || prior.GetState() == schedulerv1.Build_STATE_CANCELLED:
		p.retryOf = p.build
		return s.planBuild(ctx, t, p)
	case !ended(prior.GetState()):
		decided := ignored(eventv1.Reason_REASON_DUPLICATE, "%s is being built already, as %s", short(p.sha), prior.GetId())
		if prior.GetState() == schedulerv1.Build_STATE_BLOCKED {
			decided.Text = fmt.Sprintf("ignored: %s waits for approval, as %s", short(p.sha), prior.GetId())
		}
		decided.BuildIds = []string{prior.GetId()}
		return decided, nil
	}
	p.retryOf = prior.GetId()
	return s.planBuild(ctx, t, p)
}

func duplicate(prior *build) *eventv1.Decision {
	d := ignored(eventv1.Reason_REASON_DUPLICATE, "%s was built already, as %s", short(prior.GetSha()), prior.GetId())
	d.BuildIds = []string{prior.GetId()}
	return d
}

// supersede cancels the tests of the pull request that the new head, or the new
// base, makes pointless. Within one second only the direct predecessor is known
// to be older.
func (s *Service) supersede(ctx context.Context, t *tx, i intent, later bool, decided *eventv1.Decision) error {
	unfinished, err := t.unfinishedTests(ctx, i.event.GetRepository().GetId(), i.pull.GetNumber())
	if err != nil {
		return err
	}
	kept := strings.Join(decided.GetBuildIds(), "") // at most one so far
	for _, b := range unfinished {
		before := i.event.GetPullRequest().GetBefore()
		if b.GetId() == kept || (!later && b.GetSha() != before && b.GetSha() != i.sha) {
			continue
		}
		b.SupersededBy = kept
		by := "Superseded by " + short(i.sha)
		if b.GetSha() == i.sha { // and only the base is another
			by = "Superseded: base branch is " + i.pull.GetBase().GetRef()
		}
		if err := s.cancel(ctx, t, b, schedulerv1.Build_REASON_SUPERSEDED, by); err != nil {
			return err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	return nil
}

// planBuild makes the build of an intent, as far as .forge.yml asks for it.
func (s *Service) planBuild(ctx context.Context, t *tx, p planned) (*eventv1.Decision, error) {
	b := s.newBuild(ctx, t, p)
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_BUILT, Text: "built", BuildIds: []string{p.id}}
	refuse := func(reason schedulerv1.Build_Reason, why eventv1.Reason, message string) {
		b.State, b.Reason, b.Message, b.EndTime = schedulerv1.Build_STATE_ERRORED, reason, message, b.GetCreateTime()
		decided.Reason, decided.Text = why, message
	}
	switch outcome := p.config.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Absent:
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NO_CONFIG, Text: "no .forge.yml at " + short(p.sha)}, nil
	case *configv1.GetBuildConfigResponse_Invalid:
		b.ConfigProblems = outcome.Invalid.GetProblems()
		refuse(schedulerv1.Build_REASON_CONFIG_INVALID, eventv1.Reason_REASON_INVALID_CONFIG, firstProblem(outcome.Invalid))
	case *configv1.GetBuildConfigResponse_Forbidden:
		refuse(schedulerv1.Build_REASON_FORBIDDEN, eventv1.Reason_REASON_FORBIDDEN, outcome.Forbidden.GetMessage())
	case *configv1.GetBuildConfigResponse_Config:
		if len(b.job().GetCommands()) == 0 {
			return s.nothingToRun(ctx, t, p, b)
		}
		if p.moment == pushed {
			if decided := unwanted(b.config.GetPush(), p.ref); decided != nil {
				return decided, nil
			}
		}
		if p.config.GetNoMatchingPaths() {
			return skip(b), t.addBuild(ctx, b)
		}
		if p.containedIn != "" {
			return &eventv1.Decision{
				Reason: eventv1.Reason_REASON_ALREADY_CONTAINED, Text: contained{buildID: p.containedIn}.Error(), BuildIds: []string{p.containedIn},
			}, nil
		}
		if err := s.gate(ctx, t, p, b); err != nil {
			return nil, err
		}
		if b.GetState() == schedulerv1.Build_STATE_BLOCKED {
			decided.Reason, decided.Text = eventv1.Reason_REASON_BLOCKED, "blocked: "+b.GetMessage()
		}
		if b.GetState() == schedulerv1.Build_STATE_QUEUED {
			if err := s.enterEnvironment(ctx, t, b); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("config answered %T for .forge.yml at %s", outcome, short(p.sha))
	}
	return decided, t.addBuild(ctx, b)
}

func firstProblem(invalid *configv1.ConfigInvalid) string {
	if len(invalid.GetProblems()) == 0 {
		return ".forge.yml has errors"
	}
	p := invalid.GetProblems()[0]
	return fmt.Sprintf("%s:%d:%d: %s", cmp.Or(p.GetFile(), ".forge.yml"), p.GetLine(), p.GetColumn(), p.GetMessage())
}

// nothingToRun is decided where .forge.yml has no job for the purpose. A merge
// then counts as deployed.
func (s *Service) nothingToRun(ctx context.Context, t *tx, p planned, b *build) (*eventv1.Decision, error) {
	decided := ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing to run for %s in .forge.yml", purposeOf(p.action).name)
	if p.moment != merged {
		return decided, nil
	}
	asked, err := s.askPromotion(ctx, t, b, p.pull.GetHtmlUrl())
	if asked {
		decided.Text = fmt.Sprintf("promoted: .forge.yml has no deploy to staging, so %s goes on to %s", b.GetBaseRef(), s.ProductionBranches[0])
	}
	return decided, err
}

// askPromotion asks for the pull request into production, if that is what
// follows from the build.
func (s *Service) askPromotion(ctx context.Context, t *tx, b *build, because string) (bool, error) {
	if !purposeOf(b.GetAction()).promotes || len(s.ProductionBranches) == 0 || b.GetRollBackOf() != "" {
		return false, nil
	}
	return true, t.addPromotion(ctx, &reporterv1.PromoteRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(),
		Head: b.GetBaseRef(), Base: s.ProductionBranches[0], Sha: b.GetSha(), BuildUrl: because,
	}, b.traceparent)
}

// newBuild is the queued build of an intent, not stored yet.
func (s *Service) newBuild(ctx context.Context, t *tx, p planned) *build {
	b := &build{
		Build: &schedulerv1.Build{
			Id: p.id, Repository: p.event.GetRepository(), InstallationId: p.event.GetInstallationId(),
			Action: p.action, Sha: p.sha, Ref: p.ref, BaseRef: p.pull.GetBase().GetRef(),
			PullRequest: p.pull.GetNumber(), Title: p.pull.GetTitle(), Actor: p.event.GetSender().GetLogin(),
			Environment: purposeOf(p.action).environment, Fork: p.fork, CommitCount: p.pull.GetCommitCount(), RetryOf: p.retryOf,
			State: schedulerv1.Build_STATE_QUEUED, Context: "forge/" + purposeOf(p.action).name,
			Url: s.buildURL(p.id), Image: p.config.GetConfig().GetImage(),
			CreateTime: timestamppb.New(t.now), DeliveryId: p.event.GetDeliveryId(), TraceId: telemetry.TraceID(ctx),
		},
		config: &configv1.BuildConfig{}, due: t.now, traceparent: telemetry.Traceparent(ctx),
	}
	if config := p.config.GetConfig(); config != nil {
		b.config = config
	}
	if b.GetFork() {
		// What is not in the build's config can reach its container by no way.
		b.SecretsWithheld = len(b.config.GetSecrets()) > 0
		b.config.Secrets, b.config.Ports = nil, nil
	}
	b.EnvironmentUrl = b.job().GetUrl()
	b.StepCount = int32(len(b.job().GetCommands())) //nolint:gosec // config bounds it by 500
	return b
}

// job is what the build runs.
func (b *build) job() *configv1.Job { return jobOf(b.GetAction(), b.config) }

func jobOf(action schedulerv1.Build_Action, config *configv1.BuildConfig) *configv1.Job {
	if of := purposeOf(action).job; of != nil {
		return of(config)
	}
	return nil
}
