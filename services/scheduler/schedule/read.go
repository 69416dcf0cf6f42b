package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/cron"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// read takes up what the file at the newest commit of the default branch asks for. Its
// error says that GitHub could not be asked.
func (s *Service) read(ctx context.Context, f *store.ScheduleFile) error {
	ctx, cancel := context.WithTimeout(ctx, callsWithin)
	defer cancel()
	config, of, problem, err := s.ask(ctx, f)
	if err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		f, err := store.Timetable{Tx: t}.ScheduleFile(ctx, of.GetId())
		if f == nil || err != nil {
			return err
		}
		known, err := store.Timetable{Tx: t}.SchedulesOf(ctx, of.GetId())
		if err != nil {
			return err
		}
		f.Repository, f.Problem, f.Tries = of, problem, 0
		if problem == "" {
			f.Notify = config.GetNotify()
		}
		again := readIdle
		if len(known)+len(config.GetSchedules())+len(f.Notify) > 0 {
			again = readEvery
		}
		if err := (store.Timetable{Tx: t}).SaveScheduleFile(ctx, f, t.Now.Add(again)); problem != "" || err != nil {
			return err
		}
		return takeUp(ctx, t, of, known, config)
	})
}

// ask is the file as it is now, or the problem that there is with it.
func (s *Service) ask(ctx context.Context, f *store.ScheduleFile) (*configv1.BuildConfig, *eventv1.Repository, string, error) {
	found, err := s.Commits.FindCommit(ctx, &configv1.FindCommitRequest{Repository: f.Repository})
	if refused(err) {
		return nil, f.Repository, err.Error(), nil
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("default branch: %w", err)
	}
	of := found.GetRepository()
	if of.GetId() != f.Repository.GetId() {
		return nil, f.Repository, "the repository is gone: another has its name now", nil
	}
	read, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{Repository: of, InstallationId: f.InstallationID, Sha: found.GetSha()})
	if refused(err) {
		return nil, of, err.Error(), nil
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("read .forge.yml at %s: %w", found.GetSha(), err)
	}
	switch outcome := read.GetOutcome().(type) {
	case *configv1.GetBuildConfigResponse_Invalid:
		return nil, of, plan.FirstProblem(outcome.Invalid), nil
	case *configv1.GetBuildConfigResponse_Forbidden:
		return nil, of, outcome.Forbidden.GetMessage(), nil
	default:
		return read.GetConfig(), of, "", nil
	}
}

// refused reports whether GitHub does not open a repository, now or any more.
func refused(err error) bool {
	return slices.ContainsFunc([]fault.Kind{fault.NotFound, fault.Denied, fault.Conflict}, func(kind fault.Kind) bool { return fault.Is(err, kind) })
}

// takeUp has what is known of a repository be what its file asks for. What is as it was
// keeps the time that it is due.
func takeUp(ctx context.Context, t *store.Tx, of *eventv1.Repository, known []*store.Schedule, config *configv1.BuildConfig) error {
	for _, asked := range config.GetSchedules() {
		c := &store.Schedule{RepositoryID: of.GetId(), Name: asked.GetName()}
		at := slices.IndexFunc(known, func(old *store.Schedule) bool { return old.Name == asked.GetName() })
		if at >= 0 {
			c = known[at]
		}
		if at < 0 || c.Asked().GetCron() != asked.GetCron() || c.Asked().GetZone() != asked.GetZone() {
			c.Next, c.Tries = next(asked, t.Now), 0
			c.Due = c.Next
		}
		c.Config = alone(config, asked)
		if err := (store.Timetable{Tx: t}).SaveSchedule(ctx, of, c); err != nil {
			return err
		}
	}
	for _, old := range known {
		if !slices.ContainsFunc(config.GetSchedules(), func(asked *configv1.Schedule) bool { return asked.GetName() == old.Name }) {
			if err := (store.Timetable{Tx: t}).RemoveSchedule(ctx, old); err != nil {
				return err
			}
		}
	}
	return nil
}

// alone is a file with one of its schedules and nothing else to run.
func alone(config *configv1.BuildConfig, asked *configv1.Schedule) *configv1.BuildConfig {
	one := proto.CloneOf(config)
	one.Schedules = []*configv1.Schedule{proto.CloneOf(asked)}
	one.Execute, one.Staging, one.DeployStaging, one.DeployProduction = nil, nil, nil, nil
	one.Push, one.PullRequest, one.Release, one.Manual, one.Environments = nil, nil, nil, nil, nil
	return one
}

// next is when a schedule is due after a time; zero where it never is.
func next(asked *configv1.Schedule, after time.Time) time.Time {
	when, err := cron.Parse(asked.GetCron(), asked.GetZone())
	if err != nil {
		return time.Time{}
	}
	return when.Next(after)
}
