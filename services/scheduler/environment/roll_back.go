package environment

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/graph"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// RollBack makes the build that repeats an earlier deploy; or finds it, where it
// was asked for before and has not ended.
func (s *Service) RollBack(ctx context.Context, t *store.Tx, e *store.Environment, of *store.Build, id, url string) (string, error) {
	if of.GetEnvironment() != e.Name || of.GetRepository().GetId() != e.RepositoryID ||
		of.GetState() != schedulerv1.Build_STATE_PASSED {
		return "", fault.Newf(fault.Conflict, "build %s is no successful deploy to %s of %s", of.GetId(), e.Name, e.Repository)
	}
	if wanted, err := (store.Previews{Tx: t}).Wanted(ctx, e.RepositoryID, of.GetPullRequest()); err != nil || trigger.IsPreview(of.GetAction()) && !wanted.Wants(e.Name) {
		return "", cmp.Or(err, fault.Newf(fault.Conflict, "#%d has no preview %s any more", of.GetPullRequest(), e.Name))
	}
	waiting, err := store.Waiting(ctx, t, e, t.Locked)
	if err != nil {
		return "", err
	}
	if e.Holder != "" {
		holder, err := t.Build(ctx, e.Holder)
		if err != nil {
			return "", err
		}
		waiting = append(waiting, holder)
	}
	for _, w := range waiting {
		if w.GetRollBackOf() == of.GetId() && !store.Ended(w.GetState()) {
			return w.GetId(), nil
		}
	}
	if err := s.ReleaseUnstarted(ctx, t, e); err != nil {
		return "", err
	}
	b := repeat(ctx, t, of, id, url)
	b.RollBackOf = of.GetId()
	b.State, b.Due = schedulerv1.Build_STATE_WAITING, time.Time{}
	b.Reason, b.Message = e.BlockedBy(b)
	jobs, err := s.repeatJobs(ctx, t, of, b)
	if err != nil {
		return "", err
	}
	if err := t.AddBuild(ctx, b); err != nil {
		return "", err
	}
	if len(jobs) > 0 {
		if err := t.AddJobs(ctx, jobs); err != nil {
			return "", err
		}
	}
	return id, s.Advance(ctx, t, e)
}

// repeatJobs are the jobs of a build that repeats another, without those that were
// left out there because of what was built.
func (*Service) repeatJobs(ctx context.Context, t *store.Tx, of, b *store.Build) ([]*store.Build, error) {
	before, err := store.JobsOf(ctx, t, of.GetId(), "")
	if err != nil {
		return nil, err
	}
	var configs []*configv1.Job
	for _, job := range before {
		configs = append(configs, job.ConfigJob())
	}
	jobs := store.NewJobs(b, configs)
	for n, job := range jobs {
		if old := before[n]; old.GetReason() == schedulerv1.Build_REASON_CONDITION && !graph.Outlasts(old) {
			job.State, job.Reason, job.Message, job.EndTime = old.GetState(), old.GetReason(), old.GetMessage(), b.GetCreateTime()
		}
	}
	return jobs, nil
}

// repeat is a build that runs again what another ran, not stored yet.
func repeat(ctx context.Context, t *store.Tx, of *store.Build, id, url string) *store.Build {
	return &store.Build{Config: of.Config, Traceparent: telemetry.Traceparent(ctx), Build: &schedulerv1.Build{
		Id: id, Url: url, CreateTime: timestamppb.New(t.Now), TraceId: telemetry.TraceID(ctx),

		Repository: of.GetRepository(), InstallationId: of.GetInstallationId(), Action: of.GetAction(), Sha: of.GetSha(), Ref: of.GetRef(), Branch: of.GetBranch(), BaseRef: of.GetBaseRef(), BaseSha: of.GetBaseSha(), CommitMessage: of.GetCommitMessage(),
		PullRequest: of.GetPullRequest(), Title: of.GetTitle(), CommitCount: of.GetCommitCount(), Context: of.GetContext(), Environment: of.GetEnvironment(), Job: of.GetJob(),
		Fork: of.GetFork(), ApprovedBy: of.GetApprovedBy(), SecretsWithheld: of.GetSecretsWithheld(),
		Image: of.GetImage(), EnvironmentUrl: of.GetEnvironmentUrl(), StepCount: of.GetStepCount(),
	}}
}
