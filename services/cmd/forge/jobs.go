package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// resolve is the id of what somebody names: a build, or a job of it as
// BUILD/JOB, where JOB is its title, its name, or the beginning of one alone.
func resolve(ctx context.Context, client schedulerv1.BuildServiceClient, named string) (string, error) {
	build, job, isJob := strings.Cut(named, "/")
	if !isJob {
		return named, nil
	}
	if job == "" {
		return "", usagef("%s names no job: write %s/JOB, or leave the / out", named, build)
	}
	answer, err := client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: build})
	if err != nil {
		return "", err
	}
	jobs := answer.GetBuild().GetJobs()
	for _, fits := range []func(*schedulerv1.Job) bool{
		func(j *schedulerv1.Job) bool { return j.GetTitle() == job },
		func(j *schedulerv1.Job) bool { return j.GetName() == job },
		func(j *schedulerv1.Job) bool { return strings.HasPrefix(j.GetTitle(), job) },
	} {
		var found []*schedulerv1.Job
		for _, j := range jobs {
			if fits(j) {
				found = append(found, j)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0].GetId(), nil
		default:
			return "", usagef("build %s has several jobs called %s: %s", build, job, titles(found))
		}
	}
	if len(jobs) == 0 {
		return "", fault.Newf(fault.NotFound, "build %s has no jobs: leave /%s out", build, job)
	}
	return "", fault.Newf(fault.NotFound, "build %s has no job %s: it has %s", build, job, titles(jobs))
}

// choices is the build, or the job, that is named, and of a build its jobs: one of them is
// meant, where there are any.
func choices(ctx context.Context, client schedulerv1.BuildServiceClient, named string) (string, []*schedulerv1.Job, error) {
	id, err := resolve(ctx, client, named)
	if err != nil || id != named {
		return id, nil, err
	}
	answer, err := client.GetBuild(ctx, &schedulerv1.GetBuildRequest{BuildId: id})
	return id, answer.GetBuild().GetJobs(), err
}

// logOf is the build, or the job, whose log is meant: of a build with jobs the one
// that did not pass, or that has one at all.
func logOf(ctx context.Context, client schedulerv1.BuildServiceClient, named string) (string, error) {
	id, jobs, err := choices(ctx, client, named)
	if err != nil || len(jobs) == 0 {
		return id, err
	}
	switch failed := broken(jobs); {
	case len(failed) == 1:
		return failed[0].GetId(), nil
	case len(jobs) == 1:
		return jobs[0].GetId(), nil
	case len(failed) > 1:
		return "", usagef("each job has a log of its own: ask for %s/JOB, where JOB is one that did not pass: %s", id, titles(failed))
	default:
		return "", usagef("each job has a log of its own: ask for %s/JOB, where JOB is one of %s", id, titles(jobs))
	}
}

// broken are the jobs that ran, did not pass, and had to.
func broken(jobs []*schedulerv1.Job) (all []*schedulerv1.Job) {
	for _, j := range jobs {
		if j.GetAttempt() > 0 && j.GetState() > schedulerv1.Build_STATE_PASSED && !j.GetMayFail() {
			all = append(all, j)
		}
	}
	return all
}

// containerOf is the build, or the job, whose container is meant: of a build with jobs the
// one whose is kept. Where that is none but only one can be meant, Forge says why.
func containerOf(ctx context.Context, client schedulerv1.BuildServiceClient, named string) (string, error) {
	id, jobs, err := choices(ctx, client, named)
	if err != nil || len(jobs) == 0 {
		return id, err
	}
	var kept []*schedulerv1.Job
	for _, j := range jobs {
		if j.GetKeptUntilTime().AsTime().After(time.Now()) {
			kept = append(kept, j)
		}
	}
	switch failed := broken(jobs); {
	case len(kept) == 1:
		return kept[0].GetId(), nil
	case len(kept) > 1:
		return "", usagef("each job has a container of its own: ask for %s/JOB, where JOB is one whose container is kept: %s", id, titles(kept))
	case len(failed) == 1:
		return failed[0].GetId(), nil
	case len(jobs) == 1:
		return jobs[0].GetId(), nil
	default:
		return "", fault.Newf(fault.NotFound, "each job has a container of its own, and none of build %s is kept: its jobs are %s", id, titles(jobs))
	}
}

func titles(jobs []*schedulerv1.Job) string {
	var all []string
	for _, j := range jobs {
		all = append(all, j.GetTitle())
	}
	return strings.Join(all, ", ")
}

// jobLine is how a job stands.
func jobLine(j *schedulerv1.Job) string {
	line := wording.Value(j.GetState())
	if j.GetStartTime() != nil && j.GetEndTime() != nil {
		took := j.GetEndTime().AsTime().Sub(j.GetStartTime().AsTime()).Round(time.Millisecond)
		if took > time.Second {
			took = took.Round(time.Second / 10)
		}
		line += " after " + took.String()
	}
	if because := wording.Because(j); because != "" {
		line += ": " + because
	}
	return line
}

// waitedLine is for how long a build has waited for what, without what was over at once.
func waitedLine(all []*schedulerv1.Wait) string {
	var said []string
	for _, wait := range all {
		took := wait.GetEndTime().AsTime().Sub(wait.GetStartTime().AsTime()).Round(time.Second)
		if wait.GetEndTime() != nil && took > 0 {
			said = append(said, took.String()+" for "+wording.Value(wait.GetReason()))
		}
	}
	return strings.Join(said, ", ")
}

// keptLine is until when a container is kept and how to open it, or why it is not though
// it was to be; "" where it is not.
func keptLine(id string, until *timestamppb.Timestamp, notKept string) string {
	switch {
	case until.AsTime().After(time.Now()):
		return "kept until " + localTime(until) + ": forge shell " + id
	case notKept != "":
		return "not kept: " + notKept
	}
	return ""
}
