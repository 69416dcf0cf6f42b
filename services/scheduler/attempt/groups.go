package attempt

import (
	"context"
	"fmt"

	"github.com/forge-ci/forge/services/scheduler/store"
)

// leaveGroups has builds that have ended leave their concurrency groups: where what would
// have was lost, or their containers cannot be stopped though nothing runs in them.
func (s sweep) leaveGroups(ctx context.Context) error {
	ended, err := s.store.EndedMembers(ctx)
	if err != nil {
		return fmt.Errorf("ended builds of concurrency groups: %w", err)
	}
	for _, id := range ended {
		err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
			over, err := s.over(ctx, t, id)
			if err != nil || !over {
				return err
			}
			return s.groups.Release(ctx, t, id)
		})
		if err != nil {
			return fmt.Errorf("concurrency group of build %s: %w", id, err)
		}
	}
	return nil
}

// over reports whether no command of a build runs any more. forgexec keeps the timeout of its
// build itself, also while it is cut off, and runs nothing before it has said hello.
func (s sweep) over(ctx context.Context, t *store.Tx, id string) (bool, error) {
	left, err := store.Groups{Tx: t}.Unstopped(ctx, id)
	if err != nil {
		return false, err
	}
	for _, a := range left {
		of, err := t.Build(ctx, a.BuildID)
		if err != nil {
			return false, err
		}
		until := a.Contact.Add(s.timeout(of) + s.Runners.Grace + lateTime(of))
		if !a.Ended || a.RunnerID != "" && !s.now().After(until) {
			return false, nil
		}
	}
	return true, nil
}
