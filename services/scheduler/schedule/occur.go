package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Occur runs a schedule whose time has come, as the file is by now.
func (s *Service) Occur(ctx context.Context, c *store.Schedule) {
	failure := s.occur(ctx, c)
	if failure == nil {
		return
	}
	err := s.change(ctx, c, func(_ context.Context, t *store.Tx, now *store.Schedule, _ *store.ScheduleFile) error {
		now.Tries, now.Message = c.Tries+1, "tried again, late: "+failure.Error()
		now.Due = t.Now.Add(due.Backoff(now.Tries, retryFirst, retryMost, rand.Float64))
		return nil
	})
	if err = errors.Join(failure, err); ctx.Err() == nil {
		s.log.WarnContext(ctx, "schedule not run; tried again", "repository", c.RepositoryID, "schedule", c.Name, "error", err)
	}
}

func (s *Service) occur(ctx context.Context, c *store.Schedule) error {
	f, err := s.store.ReadScheduleFile(ctx, c.RepositoryID)
	if f == nil || err != nil {
		return err
	}
	if err := s.read(ctx, f); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callsWithin)
	defer cancel()
	found, err := s.Commits.FindCommit(call, &configv1.FindCommitRequest{Repository: f.Repository, Branch: c.Asked().GetBranch()})
	if err != nil {
		return err
	}
	id, err := s.plan.NewID()
	if err != nil {
		return err
	}
	return s.change(ctx, c, func(ctx context.Context, t *store.Tx, now *store.Schedule, f *store.ScheduleFile) error {
		if now.Asked().GetBranch() != c.Asked().GetBranch() { // looked up for another
			now.Due = t.Now
			return nil
		}
		unfinished, err := store.Timetable{Tx: t}.UnfinishedOf(ctx, c.RepositoryID, c.Name)
		if err != nil {
			return err
		}
		if unfinished != "" {
			now.Due, now.Message = t.Now.Add(lookAgain), fmt.Sprintf("waits until build %s has ended", unfinished)
			return nil
		}
		o := plan.Occurrence{
			ID: id, Repository: found.GetRepository(), InstallationID: f.InstallationID, Config: now.Config, Name: c.Name,
			Branch: found.GetBranch(), Sha: found.GetSha(), Title: found.GetTitle(), Time: now.Next, Notes: notes(t.Now, now, f),
		}
		decided, err := o.Apply(ctx, t, s.plan)
		if err != nil {
			return err
		}
		now.Last, now.LastBuild, now.Message, now.Tries = now.Next, id, decided.GetText(), 0
		if late(t.Now, now) {
			now.Message += ", late"
		}
		now.Next = next(now.Asked(), t.Now)
		now.Due = now.Next
		return nil
	})
}

// change changes a schedule that is still due for the time it was claimed for.
func (s *Service) change(ctx context.Context, c *store.Schedule, do func(context.Context, *store.Tx, *store.Schedule, *store.ScheduleFile) error) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		f, err := store.Timetable{Tx: t}.ScheduleFile(ctx, c.RepositoryID)
		if f == nil || err != nil {
			return err
		}
		now, err := store.Timetable{Tx: t}.Schedule(ctx, c.RepositoryID, c.Name)
		if now == nil || err != nil || !now.Next.Equal(c.Next) {
			return err
		}
		if err := do(ctx, t, now, f); err != nil {
			return err
		}
		return store.Timetable{Tx: t}.SaveSchedule(ctx, f.Repository, now)
	})
}

func late(now time.Time, c *store.Schedule) bool { return now.Sub(c.Next) >= lateAfter }

// notes are for the log of a build: what is not as people expect.
func notes(now time.Time, c *store.Schedule, f *store.ScheduleFile) []string {
	var all []string
	if late(now, c) {
		all = append(all, "late: it was due at "+c.Next.UTC().Format(time.RFC3339))
	}
	if f.Problem != "" {
		all = append(all, "as the file last was without errors: "+f.Problem)
	}
	return all
}
