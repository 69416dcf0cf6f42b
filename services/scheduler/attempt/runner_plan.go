package attempt

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/content"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// variables are what every command of a build sees: those of .forge.yml, and
// ours, which win.
func variables(b *store.Build, handed map[string]string) map[string]string {
	all := maps.Clone(b.ConfigJob().GetEnvironment())
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, handed)
	maps.Copy(all, map[string]string{
		"CI":                   "true",
		"FORGE":                "true",
		"FORGE_ACTION":         trigger.ActionName(b.GetAction(), b.GetEnvironment()),
		"FORGE_ENVIRONMENT":    b.GetEnvironment(),
		"FORGE_OWNER":          b.GetRepository().GetOwner(),
		"FORGE_REPO":           b.GetRepository().GetName(),
		"FORGE_SHA":            b.GetSha(),
		"FORGE_REF":            b.GetRef(),
		"FORGE_BASE_REF":       b.GetBaseRef(),
		"FORGE_BASE_SHA":       b.GetBaseSha(),
		"FORGE_BEFORE_SHA":     b.GetBeforeSha(),
		"FORGE_TAG":            "",
		"FORGE_SCHEDULE":       b.GetSchedule(),
		"FORGE_DEFAULT_BRANCH": b.GetRepository().GetDefaultBranch(),
		"FORGE_COMMIT_MESSAGE": b.GetCommitMessage(),
		"FORGE_BUILD_ID":       store.WholeID(b.GetId()),
		"FORGE_JOB":            b.GetJob(),
		"FORGE_BUILD_URL":      b.GetUrl(),
		"FORGE_PULL_REQUEST":   "",
		"FORGE_COMMIT_COUNT":   "",
		"FORGE_VERSION":        wording.Short(b.GetSha()),
		"TRACEPARENT":          runSpan(b.Traceparent, store.AttemptName(b.GetId(), b.GetAttempt())),
		"BAGGAGE":              baggage(b),
	})
	if tag, isTag := strings.CutPrefix(b.GetRef(), "refs/tags/"); isTag {
		all["FORGE_TAG"] = tag
	}
	if b.GetPullRequest() != 0 {
		all["FORGE_PULL_REQUEST"] = strconv.Itoa(int(b.GetPullRequest()))
		all["FORGE_COMMIT_COUNT"] = strconv.Itoa(int(b.GetCommitCount()))
	}
	if b.GetPullRequest() != 0 && (b.GetEnvironment() == "" || trigger.IsPreview(b.GetAction())) {
		all["FORGE_VERSION"] = fmt.Sprintf("rc%d", b.GetCommitCount())
	}
	return all
}

// handedOn are the outputs of the jobs that a job needs, as it sees them. Where its
// attempt is retried, they are the same: what it needs has ended for good.
func handedOn(ctx context.Context, s *store.Store, b *store.Build) (map[string]string, error) {
	all := map[string]string{}
	if !b.IsJob() || len(b.GetNeeds()) == 0 {
		return all, nil
	}
	jobs, err := store.JobsOf(ctx, s.DB.Read(), b.GetPartOf(), "")
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	outputs, err := s.OutputsOf(ctx, b.GetPartOf())
	if err != nil {
		return nil, err
	}
	for _, job := range jobs {
		if !slices.Contains(b.GetNeeds(), job.ConfigJob().GetName()) {
			continue
		}
		for _, output := range outputs {
			if output.BuildID == job.GetId() && slices.Contains(job.ConfigJob().GetOutputs(), output.Name) {
				all["NEEDS_"+variableOf(job.ConfigJob().GetName())+"_"+output.Name] = output.Value
			}
		}
	}
	return all, nil
}

// variableOf is a job's name as it stands in the name of a variable.
func variableOf(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, name)
}

// environmentOfBuild is what every command of a build sees, but for its secrets, and of what
// was given for it that which is secret.
func environmentOfBuild(ctx context.Context, s *Service, b *store.Build) (all, secret map[string]string, err error) {
	handed, err := handedOn(ctx, s.store, b)
	if err != nil {
		return nil, nil, err
	}
	given, secret, err := s.inputs.For(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(handed, given)
	if handed["FORGE_MERGE_SHA"], err = merge(ctx, s.sources, b); err != nil {
		return nil, nil, err
	}
	return variables(b, handed), secret, nil
}

// runnerPlan is what a runner is sent; its error is that of secretsFor.
func (s *Service) runnerPlan(ctx context.Context, b *store.Build) (*schedulerv1.Plan, error) {
	secrets, notices, err := s.secrets.SecretsFor(ctx, b)
	if err != nil {
		return nil, err
	}
	environment, secret, err := environmentOfBuild(ctx, s, b)
	if err != nil {
		return nil, err
	}
	if secrets == nil {
		secrets = secret
	}
	maps.Copy(secrets, secret) // a secret of the repository can be called as an input, and what was given counts
	plan := &schedulerv1.Plan{
		BuildId: b.GetId(), Attempt: b.GetAttempt(), Environment: environment,
		Timeout: durationpb.New(s.timeout(b)), Grace: durationpb.New(s.Runners.Grace), Heartbeat: durationpb.New(s.Runners.Heartbeat),
		LogLimit: s.Limits.Log, Cleanup: durationpb.New(cleanup),
		WorkingDirectory: b.ConfigJob().GetWorkingDirectory(), Shell: b.ConfigJob().GetShell(), Outputs: b.ConfigJob().GetOutputs(),
		Reports: b.ConfigJob().GetReports(),
		Secrets: secrets, Notices: notices, Caches: b.ConfigJob().GetCaches(), SpanLimit: s.tools.limit(),
	}
	needed, err := s.contents.Needed(ctx, b)
	if err != nil {
		return nil, err
	}
	if kept := content.Artifacts(b); len(needed)+len(kept)+len(plan.GetCaches()) > 0 {
		plan.Artifacts = &schedulerv1.Plan_Artifacts{Needed: needed, Kept: kept, Within: durationpb.New(keepTime(b))}
	}
	for _, step := range b.PlannedSteps() {
		plan.Steps = append(plan.Steps, &schedulerv1.PlannedStep{
			Number: step.GetNumber(), Name: step.GetName(), Run: step.GetRun(), When: step.GetWhen(), Image: plannedImage(b, step.GetNumber(), plan.GetEnvironment()),
		})
	}
	return plan, nil
}

// timeout is how long the commands may run.
func (s *Service) timeout(b *store.Build) time.Duration {
	if asked := b.ConfigJob().GetTimeout().AsDuration(); asked > 0 {
		return min(asked, s.Limits.MaxTimeout)
	}
	return min(s.Limits.Timeout, s.Limits.MaxTimeout)
}

// cleanup is how long the steps may take, in all, that run after a cancellation or
// the timeout.
const cleanup = time.Minute

// lateTime is how much of that a build may take.
func lateTime(b *store.Build) time.Duration {
	for _, command := range b.ConfigJob().GetCommands() {
		if when := command.GetWhen(); when == configv1.Command_WHEN_ALWAYS || when == configv1.Command_WHEN_FAILURE {
			return cleanup
		}
	}
	return 0
}

// keepTime is how long saving caches and keeping artifacts may take.
func keepTime(b *store.Build) time.Duration {
	if len(b.ConfigJob().GetCaches())+len(b.ConfigJob().GetArtifacts()) == 0 {
		return 0
	}
	return 10 * time.Minute
}

// heedsPlan reports whether a runner does all that a plan asks for.
func heedsPlan(plan *schedulerv1.Plan, hello *schedulerv1.Hello) bool {
	conditional := slices.ContainsFunc(plan.GetSteps(), func(step *schedulerv1.PlannedStep) bool {
		return step.GetWhen() > configv1.Command_WHEN_SUCCESS
	})
	asks := conditional || plan.GetWorkingDirectory() != "" || plan.GetShell() > configv1.Shell_SHELL_SH || len(plan.GetOutputs()) > 0
	artifacts := len(plan.GetArtifacts().GetNeeded())+len(plan.GetArtifacts().GetKept()) > 0
	return (!asks || hello.GetHeedsJobs()) && (!artifacts || hello.GetKeepsContent())
}

// readsPlan has a runner that reads no reports be asked for none, which the log says.
func readsPlan(plan *schedulerv1.Plan, hello *schedulerv1.Hello) {
	if plan.GetReports() == nil || hello.GetReadsReports() {
		return
	}
	plan.Reports = nil
	plan.Notices = append(plan.Notices, "forge: no reports are read: this build's forgexec is too old for that; replace it by the one that came with Forge")
}

// overtime is what the scheduler grants beyond the timeout, which the runner
// keeps, before it ends the attempt itself.
func (s *Service) overtime(b *store.Build) time.Duration {
	return s.timeout(b) + s.Runners.Grace + time.Minute + lateTime(b) + keepTime(b)
}
