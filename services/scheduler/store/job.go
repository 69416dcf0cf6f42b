package store

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// IsJob reports whether this is a job of a build.
func (b *Build) IsJob() bool { return b.GetPartOf() != "" }

// HasJobs reports whether this is a build that runs nothing itself: its jobs do.
func (b *Build) HasJobs() bool { return b.GetJobCount() > 0 }

// Pipeline is what the build's action runs.
func (b *Build) Pipeline() *configv1.Pipeline { return PipelineOf(b.GetAction(), b.Config) }

// PipelineOf is what an action runs of a file; nil where the file has nothing for it.
func PipelineOf(action schedulerv1.Build_Action, config *configv1.BuildConfig) *configv1.Pipeline {
	if of := trigger.ActionOf(action).Pipeline; of != nil {
		return of(config)
	}
	return nil
}

// ConfigJob is what runs in the container of a job, or of a build without jobs.
func (b *Build) ConfigJob() *configv1.Job {
	if b.IsJob() {
		for _, job := range b.Config.GetExecute().GetJobs() { // the config of a job holds it alone
			return job
		}
	}
	c := b.Config
	return &configv1.Job{
		Image: c.GetImage(), Commands: b.Pipeline().GetCommands(), Environment: c.GetEnvironment(), Services: c.GetServices(),
		Secrets: c.GetSecrets(), Timeout: c.GetTimeout(), Resources: c.GetResources(), Ports: c.GetPorts(),
		Privileged: c.GetPrivileged(), Volumes: c.GetVolumes(),
		WorkingDirectory: c.GetWorkingDirectory(), Shell: c.GetShell(), Platform: c.GetPlatform(), Retry: c.GetRetry(), Source: c.GetSource(), Keep: c.GetKeep(),
		Caches: c.GetCaches(), Artifacts: c.GetArtifacts(), Reports: c.GetReports(),
	}
}

// jobMark parts the id of a build from the number of its job.
const jobMark = "-"

// JobID names a job of a build, which counts from 1.
func JobID(buildID string, number int) string { return buildID + jobMark + strconv.Itoa(number) }

// WholeID names the build that an id is of, which may be that of one of its jobs.
func WholeID(id string) string {
	whole, _, _ := strings.Cut(id, jobMark)
	return whole
}

// JobsOf are the jobs of a build, in the order of the file.
func JobsOf(ctx context.Context, q sqldb.Querier, buildID, locked string) ([]*Build, error) {
	return sqldb.Collect(ctx, q, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE part_of = $1 AND part_of <> '' ORDER BY number`+locked, buildID)
}

// NewJobs are the jobs of a new build, not stored yet: they wait until it may
// begin. The config of each holds it alone, and that of the build none of them.
func NewJobs(whole *Build, of []*configv1.Job) []*Build {
	c := whole.Config
	parts := []*configv1.Pipeline{c.GetExecute(), c.GetStaging(), c.GetDeployStaging(), c.GetDeployProduction(), c.GetPush().GetExecute(), c.GetPullRequest().GetClosed(), c.GetRelease().GetExecute(), c.GetManual().GetExecute()}
	for _, environment := range c.GetEnvironments() {
		parts = append(parts, environment.GetExecute())
	}
	for _, schedule := range c.GetSchedules() {
		parts = append(parts, schedule.GetExecute())
	}
	for _, p := range parts {
		if p != nil {
			p.Jobs = nil
		}
	}
	whole.JobCount = int32(len(of)) //nolint:gosec // config bounds it by 100
	var jobs []*Build
	for n, job := range of {
		id := JobID(whole.GetId(), n+1)
		b := &Build{
			Build:  proto.CloneOf(whole.Build),
			Config: &configv1.BuildConfig{Execute: &configv1.Pipeline{Jobs: []*configv1.Job{job}}}, Traceparent: whole.Traceparent,
		}
		b.Id, b.PartOf, b.Url = id, whole.GetId(), strings.TrimSuffix(whole.GetUrl(), whole.GetId())+id
		b.Job, b.Needs, b.MayFail, b.Image = job.GetTitle(), job.GetNeeds(), job.GetMayFail(), job.GetImage()
		if !whole.IsRemote() {
			b.Context += "/" + job.GetTitle()
		}
		b.StepCount = int32(len(job.GetCommands())) //nolint:gosec // config bounds it by 500
		b.EnvironmentUrl, b.JobCount, b.Inputs = "", 0, nil
		b.State, b.Reason, b.Message = schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_NEEDS, ""
		jobs = append(jobs, b)
	}
	return jobs
}

// JobIDs names the jobs of a build.
func JobIDs(ctx context.Context, q sqldb.Querier, buildID string) ([]string, error) {
	return sqldb.Collect(ctx, q, scanID, `SELECT id FROM builds WHERE part_of = $1 AND part_of <> '' ORDER BY number`, buildID)
}

// ShowJob is what people see of a job in its build.
func ShowJob(b *Build) *schedulerv1.Job {
	return &schedulerv1.Job{
		Id: b.GetId(), Title: b.GetJob(), Name: b.ConfigJob().GetName(), State: b.GetState(), Reason: b.GetReason(), Message: b.GetMessage(),
		Needs: b.GetNeeds(), MayFail: b.GetMayFail(), Attempt: b.GetAttempt(),
		StartTime: b.GetStartTime(), EndTime: b.GetEndTime(), Url: b.GetUrl(),
		PlaceTime: b.GetPlaceTime(), ContainerTime: b.GetContainerTime(), SourceTime: b.GetSourceTime(),
		KeptUntilTime: b.GetKeptUntilTime(),
	}
}

// PlannedSteps are the steps of a build as they stand before it runs.
func (b *Build) PlannedSteps() []*schedulerv1.Step {
	var steps []*schedulerv1.Step
	if b.HasJobs() {
		return nil
	}
	for n, command := range b.ConfigJob().GetCommands() {
		steps = append(steps, &schedulerv1.Step{
			Number: int32(n) + 1, // config bounds it by 500
			Name:   command.GetName(), Run: command.GetRun(), When: command.GetWhen(), State: schedulerv1.Step_STATE_PENDING,
		})
	}
	return steps
}
