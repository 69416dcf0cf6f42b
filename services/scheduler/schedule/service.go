package schedule

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// Files are read whenever their branch is pushed to; besides that so often, since
	// pushes get lost, and a file that has none may get some.
	readEvery   = time.Hour
	readIdle    = 24 * time.Hour
	retryFirst  = 5 * time.Second
	retryMost   = 10 * time.Minute
	lookAgain   = 15 * time.Second // at a schedule whose last build has not ended
	lateAfter   = 2 * time.Minute
	manyAtOnce  = 4
	callsWithin = 30 * time.Second
)

// Service knows the schedules and has them run.
type Service struct {
	schedulerv1.UnimplementedScheduleServiceServer

	store *store.Store
	plan  *plan.Service
	log   *slog.Logger
	now   func() time.Time
	// Configs and Commits tell what GitHub knows.
	Configs configv1.BuildConfigServiceClient
	Commits configv1.CommitServiceClient

	Files *due.Loop[*store.ScheduleFile]
	Runs  *due.Loop[*store.Schedule]
}

// Deps is what schedules need.
type Deps struct {
	Store *store.Store
	Plan  *plan.Service
	// Config is asked for what GitHub knows.
	Config grpc.ClientConnInterface
	Log    *slog.Logger
}

// New returns the schedules; Run has them run.
func New(d Deps) *Service {
	s := &Service{
		store: d.Store, plan: d.Plan, log: d.Log, now: d.Store.Now,
		Configs: configv1.NewBuildConfigServiceClient(d.Config), Commits: configv1.NewCommitServiceClient(d.Config),
	}
	s.Files = &due.Loop[*store.ScheduleFile]{Name: "schedule files", Workers: manyAtOnce, Log: d.Log, Claim: d.Store.ClaimScheduleFiles, Work: s.Look}
	s.Runs = &due.Loop[*store.Schedule]{Name: "schedules", Workers: manyAtOnce, Log: d.Log, Claim: d.Store.ClaimSchedules, Work: s.Occur}
	return s
}

// Run reads files and has schedules run until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Files.Run(ctx) })
	group.Go(func() error { return s.Runs.Run(ctx) })
	return group.Wait()
}

// Look reads a file that is due.
func (s *Service) Look(ctx context.Context, f *store.ScheduleFile) {
	failure := s.read(ctx, f)
	if failure == nil {
		return
	}
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		now, err := store.Timetable{Tx: t}.ScheduleFile(ctx, f.Repository.GetId())
		if now == nil || err != nil {
			return err
		}
		now.Tries = f.Tries + 1
		return store.Timetable{Tx: t}.SaveScheduleFile(ctx, now, t.Now.Add(due.Backoff(now.Tries, retryFirst, retryMost, rand.Float64)))
	})
	if err = errors.Join(failure, err); ctx.Err() == nil {
		s.log.WarnContext(ctx, "schedules not read; tried again", "repository", f.Repository.GetId(), "error", err)
	}
}
