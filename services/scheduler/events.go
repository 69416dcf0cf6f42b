package scheduler

import (
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
	i, decided := s.intend(event)
	if decided != nil {
		return decided, nil
	}
	decided, err := decision(ctx, s.store.db.Read(), event.GetDeliveryId())
	if decided != nil || err != nil {
		return decided, sqldb.Kind(err)
	}
	ctx, span := s.tracer.Start(ctx, "plan")
	defer span.End()
	var config *configv1.GetBuildConfigResponse
	if i.moment != dropped {
		// Before the transaction: GitHub may take its time.
		config, err = s.configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
			Repository: event.GetRepository(), InstallationId: event.GetInstallationId(), Sha: i.sha,
		})
		if fault.Is(err, fault.NotFound) {
			return ignored(eventv1.Reason_REASON_GONE, "%s is gone from GitHub", short(i.sha)), nil
		}
		if err != nil {
			return nil, fmt.Errorf("read .forge.yml at %s: %w", short(i.sha), err)
		}
	}
	id, err := s.newID()
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(ctx context.Context, t *tx) error {
		pull, err := t.pullRequest(ctx, event.GetRepository().GetId(), i.pull.GetNumber())
		if err != nil {
			return err
		}
		if decided, err = decision(ctx, t, event.GetDeliveryId()); decided != nil || err != nil {
			return err
		}
		if decided, err = s.plan(ctx, t, i, pull, config, id); err != nil {
			return err
		}
		return t.addDecision(ctx, event.GetDeliveryId(), decided)
	})
	span.SetAttributes(attribute.String("forge.decision", decided.GetText()), attribute.StringSlice("forge.builds", decided.GetBuildIds()))
	return decided, err
}

// newID is 128 random bits in 26 letters and digits.
func (s *Service) newID() (string, error) {
	bits := make([]byte, 16)
	if _, err := io.ReadFull(s.Random, bits); err != nil {
		return "", fmt.Errorf("random bits for an id: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bits)), nil
}

// plan carries out an intent, with a build under the given id where one is made.
func (s *Service) plan(ctx context.Context, t *tx, i intent, pull *pullRequest, config *configv1.GetBuildConfigResponse, id string) (*eventv1.Decision, error) {
	stale := pull.stale(i)
	prior, err := t.sameContent(ctx, pull.repositoryID, pull.number, i.sha, i.action)
	if err != nil {
		return nil, err
	}
	// What was merged stays merged, whatever came later.
	if stale && i.moment != merged {
		if prior != nil {
			return duplicate(prior), nil
		}
		return ignored(eventv1.Reason_REASON_STALE, "something newer is known of #%d", pull.number), nil
	}
	later := i.pull.GetUpdateTime().AsTime().After(pull.updated)
	if !stale {
		pull.learn(i)
		if err := t.savePullRequest(ctx, pull); err != nil {
			return nil, err
		}
	}
	if i.moment == dropped {
		return s.cancelTests(ctx, t, i)
	}
	decided := duplicate(prior)
	if prior == nil {
		if decided, err = s.planBuild(ctx, t, i, config, id); err != nil {
			return nil, err
		}
	}
	if i.moment == offered {
		err = s.supersede(ctx, t, i, later, decided)
	}
	return decided, err
}

func duplicate(prior *build) *eventv1.Decision {
	if prior == nil {
		return nil
	}
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
		if err := s.cancel(ctx, t, b, schedulerv1.Build_REASON_SUPERSEDED, "Superseded by "+short(i.sha)); err != nil {
			return err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	return nil
}

func (s *Service) cancelTests(ctx context.Context, t *tx, i intent) (*eventv1.Decision, error) {
	unfinished, err := t.unfinishedTests(ctx, i.event.GetRepository().GetId(), i.pull.GetNumber())
	if err != nil {
		return nil, err
	}
	if len(unfinished) == 0 {
		return ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "closed without a merge, and nothing of it was queued or running"), nil
	}
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_CANCELLED, Text: "cancelled: closed without a merge"}
	for _, b := range unfinished {
		message := fmt.Sprintf("#%d was closed", b.GetPullRequest())
		if err := s.cancel(ctx, t, b, schedulerv1.Build_REASON_PULL_REQUEST_CLOSED, message); err != nil {
			return nil, err
		}
		decided.BuildIds = append(decided.BuildIds, b.GetId())
	}
	return decided, nil
}

// planBuild makes the build of an intent, as far as .forge.yml asks for it.
func (s *Service) planBuild(ctx context.Context, t *tx, i intent, config *configv1.GetBuildConfigResponse, id string) (*eventv1.Decision, error) {
	b := s.newBuild(ctx, t, i, config.GetConfig(), id)
	decided := &eventv1.Decision{Reason: eventv1.Reason_REASON_BUILT, Text: "built", BuildIds: []string{id}}
	refuse := func(reason schedulerv1.Build_Reason, why eventv1.Reason, message string) {
		b.State, b.Reason, b.Message, b.EndTime = schedulerv1.Build_STATE_ERRORED, reason, message, b.GetCreateTime()
		decided.Reason, decided.Text = why, message
	}
	switch outcome := config.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Absent:
		return &eventv1.Decision{Reason: eventv1.Reason_REASON_NO_CONFIG, Text: "no .forge.yml at " + short(i.sha)}, nil
	case *configv1.GetBuildConfigResponse_Invalid:
		refuse(schedulerv1.Build_REASON_CONFIG_INVALID, eventv1.Reason_REASON_INVALID_CONFIG, firstProblem(outcome.Invalid))
	case *configv1.GetBuildConfigResponse_Forbidden:
		refuse(schedulerv1.Build_REASON_FORBIDDEN, eventv1.Reason_REASON_FORBIDDEN, outcome.Forbidden.GetMessage())
	case *configv1.GetBuildConfigResponse_Config:
		if len(b.job().GetCommands()) == 0 {
			return s.nothingToRun(ctx, t, i, b)
		}
		if i.fork && s.ForkPolicy == forkApprove {
			b.State, b.Reason = schedulerv1.Build_STATE_BLOCKED, schedulerv1.Build_REASON_NEEDS_APPROVAL
			b.Message = "comes from a fork and needs approval"
			decided.Reason, decided.Text = eventv1.Reason_REASON_BLOCKED, "blocked: "+b.GetMessage()
		}
		if b.GetState() == schedulerv1.Build_STATE_QUEUED {
			if err := s.enterEnvironment(ctx, t, b); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("config answered %T for .forge.yml at %s", outcome, short(i.sha))
	}
	return decided, t.addBuild(ctx, b)
}

func firstProblem(invalid *configv1.ConfigInvalid) string {
	if len(invalid.GetProblems()) == 0 {
		return ".forge.yml has errors"
	}
	p := invalid.GetProblems()[0]
	return fmt.Sprintf(".forge.yml:%d:%d: %s", p.GetLine(), p.GetColumn(), p.GetMessage())
}

// nothingToRun is decided where .forge.yml has no job for the purpose. A merge
// then counts as deployed.
func (s *Service) nothingToRun(ctx context.Context, t *tx, i intent, b *build) (*eventv1.Decision, error) {
	decided := ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "nothing to run for %s in .forge.yml", purposeOf(i.action).name)
	asked, err := s.askPromotion(ctx, t, b, i.pull.GetHtmlUrl())
	if asked {
		decided.Text = fmt.Sprintf("promoted: .forge.yml has no deploy to staging, so %s goes on to %s", b.GetBaseRef(), s.ProductionBranches[0])
	}
	return decided, err
}

// askPromotion asks for the pull request into production, if that is what
// follows from the build.
func (s *Service) askPromotion(ctx context.Context, t *tx, b *build, because string) (bool, error) {
	if !purposeOf(b.GetAction()).promotes || len(s.ProductionBranches) == 0 {
		return false, nil
	}
	return true, t.addPromotion(ctx, &reporterv1.PromoteRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(),
		Head: b.GetBaseRef(), Base: s.ProductionBranches[0], Sha: b.GetSha(), BuildUrl: because,
	}, b.traceparent)
}

// newBuild is the queued build of an intent, not stored yet.
func (s *Service) newBuild(ctx context.Context, t *tx, i intent, config *configv1.BuildConfig, id string) *build {
	b := &build{
		Build: &schedulerv1.Build{
			Id: id, Repository: i.event.GetRepository(), InstallationId: i.event.GetInstallationId(),
			Action: i.action, Sha: i.sha, Ref: i.ref, BaseRef: i.pull.GetBase().GetRef(),
			PullRequest: i.pull.GetNumber(), Title: i.pull.GetTitle(), Actor: i.event.GetSender().GetLogin(),
			Fork: i.fork, CommitCount: i.pull.GetCommitCount(),
			State: schedulerv1.Build_STATE_QUEUED, Context: "forge/" + purposeOf(i.action).name,
			Url: s.ExternalURL + "/builds/" + id, Image: config.GetImage(),
			CreateTime: timestamppb.New(t.now), DeliveryId: i.event.GetDeliveryId(), TraceId: telemetry.TraceID(ctx),
		},
		config: &configv1.BuildConfig{}, due: t.now, traceparent: telemetry.Traceparent(ctx),
	}
	if config != nil {
		b.config = config
	}
	b.EnvironmentUrl = b.job().GetUrl()
	b.StepCount = int32(len(b.job().GetCommands())) //nolint:gosec // config bounds it by 500
	return b
}

// job is what the build runs.
func (b *build) job() *configv1.Job {
	if of := purposeOf(b.GetAction()).job; of != nil {
		return of(b.config)
	}
	return nil
}
