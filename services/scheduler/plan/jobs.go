package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/graph"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// What is said of a job that was left out.
const (
	notRun  = "not run: "
	noLabel = "the pull request has no label "
)

// addWithJobs stores a new build with the jobs it has. Where it may begin, so do
// they; where none of them is to run, it has ended.
func (p prepared) addWithJobs(ctx context.Context, t *store.Tx, attempts *attempt.Service, b *store.Build) error {
	jobs := store.NewJobs(b, b.Pipeline().GetJobs())
	if err := t.AddBuild(ctx, b); err != nil || len(jobs) == 0 {
		return err
	}
	for _, job := range jobs {
		if why := p.leftOut(job.ConfigJob()); why != "" {
			job.State, job.Reason, job.Message = schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_CONDITION, notRun+why
			job.EndTime = b.GetCreateTime()
		}
	}
	if err := p.carry(ctx, t, b, jobs); err != nil {
		return err
	}
	if b.GetState() == schedulerv1.Build_STATE_QUEUED {
		graph.Advance(jobs, t.Now)
	}
	if err := t.AddJobs(ctx, jobs); err != nil || !graph.Ended(jobs) {
		return err
	}
	return attempts.Open(ctx, t, b)
}

// carry has those jobs count as passed that passed in the build which is repeated,
// where only what did not pass is to run again.
func (p prepared) carry(ctx context.Context, t *store.Tx, b *store.Build, jobs []*store.Build) error {
	if !p.Again.Some() {
		return nil
	}
	before, err := store.JobsOf(ctx, t, b.GetRetryOf(), "")
	if err != nil {
		return err
	}
	again := map[string]bool{}
	if p.Again.Job != "" {
		again = graph.Dependents(jobs, p.Again.Job)
	}
	carried := map[*store.Build]*store.Build{}
	for _, job := range jobs {
		at := slices.IndexFunc(before, func(old *store.Build) bool {
			return old.GetJob() == job.GetJob() && old.GetState() == schedulerv1.Build_STATE_PASSED
		})
		if at < 0 || again[job.ConfigJob().GetName()] || job.GetState() != schedulerv1.Build_STATE_WAITING {
			continue
		}
		carried[job] = before[at]
	}
	loadAgain(carried, jobs)
	for job, old := range carried {
		job.State, job.Reason = schedulerv1.Build_STATE_PASSED, schedulerv1.Build_REASON_CARRIED
		job.Message, job.EndTime = "passed in build "+b.GetRetryOf(), b.GetCreateTime()
		if err := store.CopyOutputs(ctx, t, old.GetId(), job.GetId()); err != nil {
			return err
		}
		if err := store.CopyImages(ctx, t, old, job.GetId()); err != nil {
			return err
		}
		if err := store.CopyArtifacts(ctx, t, old.GetId(), job.GetId()); err != nil {
			return err
		}
	}
	return nil
}

// loadAgain takes out of the jobs that are carried those that have loaded an image which a
// job that runs may need: it went with the build that is repeated.
func loadAgain(carried map[*store.Build]*store.Build, jobs []*store.Build) {
	for again := true; again; {
		again = false
		for _, job := range jobs {
			if carried[job] != nil || job.GetState() != schedulerv1.Build_STATE_WAITING {
				continue
			}
			for _, need := range jobs {
				loads := slices.ContainsFunc(need.ConfigJob().GetCommands(), func(c *configv1.Command) bool { return c.GetImage().GetLoad() })
				if carried[need] != nil && loads && slices.Contains(job.GetNeeds(), need.ConfigJob().GetName()) {
					delete(carried, need)
					again = true
				}
			}
		}
	}
}

// leftOut says which part of a job's condition does not hold, as far as it is not
// about what other jobs come to; "" where all do.
func (p prepared) leftOut(job *configv1.Job) string {
	c := job.GetCondition()
	branch, isBranch := p.branch()
	switch labels := p.Pull.GetLabels(); {
	case slices.Contains(p.config.GetJobsWithoutMatchingPaths(), job.GetName()):
		return "no changed file matches its paths"
	case len(c.GetBranches()) > 0 && (!isBranch || !slices.ContainsFunc(c.GetBranches(), func(pattern string) bool {
		return doublestar.MatchUnvalidated(pattern, branch)
	})):
		if !isBranch {
			return "its if names branches, and this is a tag"
		}
		return "the branch is " + branch
	case len(c.GetLabels()) > 0 && !slices.ContainsFunc(c.GetLabels(), func(label string) bool { return slices.Contains(labels, label) }):
		return noLabel + strings.Join(c.GetLabels(), " or ")
	case len(c.GetEvents()) > 0 && !slices.Contains(c.GetEvents(), p.event()):
		return "it is not for this event"
	}
	return ""
}

// branch is the branch that is merged into, or was pushed to; false for a tag.
func (p prepared) branch() (string, bool) {
	if p.Pull.GetBase().GetRef() == "" && trigger.ActionOf(p.Action).Deploys {
		return strings.CutPrefix(p.Ref, trigger.BranchRef)
	}
	switch p.Action { //nolint:exhaustive // others merge into a branch
	case schedulerv1.Build_ACTION_PUSH, schedulerv1.Build_ACTION_RELEASE, schedulerv1.Build_ACTION_SCHEDULE, schedulerv1.Build_ACTION_MANUAL:
		return strings.CutPrefix(p.Ref, trigger.BranchRef)
	}
	return p.Pull.GetBase().GetRef(), true
}

// event is what `if` calls what is built.
func (p prepared) event() configv1.Condition_Event {
	_, isBranch := p.branch()
	switch {
	case trigger.ActionOf(p.Action).Deploys, trigger.IsPreview(p.Action):
		return configv1.Condition_EVENT_DEPLOY
	case p.Action == schedulerv1.Build_ACTION_CLOSED:
		return configv1.Condition_EVENT_CLOSED
	case p.Action == schedulerv1.Build_ACTION_RELEASE:
		return configv1.Condition_EVENT_RELEASE
	case p.Action == schedulerv1.Build_ACTION_SCHEDULE:
		return configv1.Condition_EVENT_SCHEDULE
	case p.Action == schedulerv1.Build_ACTION_MANUAL:
		return configv1.Condition_EVENT_MANUAL
	case !isBranch:
		return configv1.Condition_EVENT_TAG
	case p.Action == schedulerv1.Build_ACTION_PUSH:
		return configv1.Condition_EVENT_PUSH
	case strings.HasPrefix(p.Ref, trigger.QueueRef):
		return configv1.Condition_EVENT_MERGE_GROUP
	default:
		return configv1.Condition_EVENT_PULL_REQUEST
	}
}

// withLabels is the pull request with its labels, where a job asks for them and what
// is built is asked for without: by a button, or a call.
func (s *Service) withLabels(ctx context.Context, p prepared) (*eventv1.PullRequest, error) {
	known := len(p.Pull.GetLabels()) > 0 || p.Kind != trigger.RebuildAsked || p.Pull.GetNumber() == 0
	if known || !wantsLabels(store.PipelineOf(p.Action, p.config.GetConfig())) {
		return p.Pull, nil
	}
	now, err := s.pullRequest(ctx, p.Event, p.Pull.GetNumber())
	if err != nil {
		return nil, fmt.Errorf("labels of #%d: %w", p.Pull.GetNumber(), err)
	}
	pull := proto.CloneOf(p.Pull)
	pull.Labels = now.GetLabels()
	return pull, nil
}

// wantsLabels reports whether a job's condition asks for labels.
func wantsLabels(pipeline *configv1.Pipeline) bool {
	return slices.ContainsFunc(pipeline.GetJobs(), func(job *configv1.Job) bool { return len(job.GetCondition().GetLabels()) > 0 })
}
