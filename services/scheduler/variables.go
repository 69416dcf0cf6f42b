package scheduler

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// variables are what every command of a build sees: those of .forge.yml, and
// ours, which win.
func (b *build) variables() map[string]string {
	all := maps.Clone(b.config.GetEnvironment())
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, map[string]string{
		"CI":                 "true",
		"FORGE":              "true",
		"FORGE_ACTION":       purposeOf(b.GetAction()).name,
		"FORGE_OWNER":        b.GetRepository().GetOwner(),
		"FORGE_REPO":         b.GetRepository().GetName(),
		"FORGE_SHA":          b.GetSha(),
		"FORGE_REF":          b.GetRef(),
		"FORGE_BASE_REF":     b.GetBaseRef(),
		"FORGE_BUILD_ID":     b.GetId(),
		"FORGE_BUILD_URL":    b.GetUrl(),
		"FORGE_PULL_REQUEST": "",
		"FORGE_COMMIT_COUNT": "",
		"FORGE_VERSION":      short(b.GetSha()),
		"TRACEPARENT":        b.traceparent,
	})
	if b.GetPullRequest() != 0 {
		all["FORGE_PULL_REQUEST"] = strconv.Itoa(int(b.GetPullRequest()))
		all["FORGE_COMMIT_COUNT"] = strconv.Itoa(int(b.GetCommitCount()))
	}
	if b.GetPullRequest() != 0 && b.GetEnvironment() == "" {
		all["FORGE_VERSION"] = fmt.Sprintf("rc%d", b.GetCommitCount())
	}
	return all
}

// runnerPlan is what a runner is sent; its error is that of handed.
func (s *Service) runnerPlan(ctx context.Context, b *build) (*schedulerv1.Plan, error) {
	secrets, notices, err := s.handed(ctx, b)
	if err != nil {
		return nil, err
	}
	plan := &schedulerv1.Plan{
		BuildId: b.GetId(), Attempt: b.GetAttempt(), Environment: b.variables(),
		Timeout: durationpb.New(s.timeout(b)), Grace: durationpb.New(s.Grace), Heartbeat: durationpb.New(s.Heartbeat),
		LogLimit: s.LogLimit,
		Secrets:  secrets, Notices: notices,
	}
	for _, step := range b.plannedSteps() {
		plan.Steps = append(plan.Steps, &schedulerv1.PlannedStep{Number: step.GetNumber(), Name: step.GetName(), Run: step.GetRun()})
	}
	return plan, nil
}

// plannedSteps are the steps of a build as they stand before it runs.
func (b *build) plannedSteps() []*schedulerv1.Step {
	var steps []*schedulerv1.Step
	for n, command := range b.job().GetCommands() {
		steps = append(steps, &schedulerv1.Step{
			Number: int32(n) + 1, // config bounds it by 500
			Name:   command.GetName(), Run: command.GetRun(), State: schedulerv1.Step_STATE_PENDING,
		})
	}
	return steps
}

// timeout is how long the commands may run.
func (s *Service) timeout(b *build) time.Duration {
	if asked := b.config.GetTimeout().AsDuration(); asked > 0 {
		return min(asked, s.MaxTimeout)
	}
	return min(s.Timeout, s.MaxTimeout)
}

// overtime is what the scheduler grants beyond the timeout, which the runner
// keeps, before it ends the attempt itself.
func (s *Service) overtime(b *build) time.Duration { return s.timeout(b) + s.Grace + time.Minute }
