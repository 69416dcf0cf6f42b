package concurrency

import (
	"context"
	"fmt"
	"slices"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// longestName is how much of a group's name a message has, in characters.
const longestName = 60

// Service lets builds of a group run one at a time.
type Service struct {
	// Trusted are the branches that others are built upon, besides the default branch of
	// each repository.
	Trusted trigger.Branches
	// Open lets the jobs of a build begin whose turn it is.
	Open func(context.Context, *store.Tx, *store.Build) error
	// Cancel ends a build, or asks it to stop.
	Cancel func(context.Context, *store.Tx, *store.Build, schedulerv1.Build_Reason, string) error
}

// Enter puts a build that is to be queued into its group, where it has one: it cancels
// those before it if its file says so, and waits for its turn while one of them is left.
// Whoever stores the build stores its group.
func (s *Service) Enter(ctx context.Context, t *store.Tx, b *store.Build) error {
	name, key := s.groupOf(b)
	if key == "" {
		return nil
	}
	g := store.Groups{Tx: t}
	if err := g.Lock(ctx, b.GetRepository().GetId()); err != nil {
		return err
	}
	b.ConcurrencyGroup, b.Group = name, key
	members, err := g.Members(ctx, b.GetRepository().GetId(), key)
	if err != nil {
		return err
	}
	if b.Config.GetConcurrency().GetCancel() && len(members) > 0 {
		if err := s.cancel(ctx, t, b, older(b, members)); err != nil {
			return err
		}
		if members, err = g.Members(ctx, b.GetRepository().GetId(), key); err != nil {
			return err
		}
	}
	if len(members) == 0 {
		return nil
	}
	waitFor(b, members[len(members)-1])
	return lineUp(ctx, t, asPushed(append(members, b)), b)
}

// cancel cancels those of a group that a newer build takes the place of. Those that wait go
// first, the latest of them before the others, so that none gets the turn meanwhile.
func (s *Service) cancel(ctx context.Context, t *store.Tx, b *store.Build, members []*store.Build) error {
	order := func(m *store.Build) int {
		if waits(m) {
			return 0
		}
		return 1
	}
	slices.Reverse(members)
	slices.SortStableFunc(members, func(a, b *store.Build) int { return order(a) - order(b) })
	for _, m := range members {
		if store.Ended(m.GetState()) || !m.Cancel.Time.IsZero() {
			continue
		}
		m.SupersededBy = b.GetId()
		if err := s.Cancel(ctx, t, m, schedulerv1.Build_REASON_CONCURRENCY, TookItsPlace(b)); err != nil {
			return err
		}
	}
	return nil
}

// waits reports whether a build waits for its turn.
func waits(b *store.Build) bool {
	return b.GetState() == schedulerv1.Build_STATE_WAITING && b.GetReason() == schedulerv1.Build_REASON_CONCURRENCY
}

// waitFor has a build wait for the one before it, and reports whether that is news.
func waitFor(b, before *store.Build) bool {
	message := fmt.Sprintf("waits for build %s of concurrency group %s", before.GetId(), clip(b.GetConcurrencyGroup()))
	if waits(b) && b.GetMessage() == message {
		return false
	}
	b.State, b.Reason, b.Message, b.Due = schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_CONCURRENCY, message, time.Time{}
	return true
}

func clip(name string) string {
	if runes := []rune(name); len(runes) > longestName {
		return string(runes[:longestName-1]) + "…"
	}
	return name
}

// Leave hands the turn of a build that has ended to the next of its group, once no
// container of the build is left.
func (s *Service) Leave(ctx context.Context, t *store.Tx, buildID string) error {
	g := store.Groups{Tx: t}
	repository, group, err := g.EndedIn(ctx, buildID)
	if err != nil || group == "" {
		return err
	}
	left, err := g.Unstopped(ctx, buildID)
	if err != nil || len(left) > 0 {
		return err
	}
	return s.leave(ctx, t, repository, group, buildID)
}

// Release does so whatever is left of the build.
func (s *Service) Release(ctx context.Context, t *store.Tx, buildID string) error {
	repository, group, err := store.Groups{Tx: t}.EndedIn(ctx, buildID)
	if err != nil || group == "" {
		return err
	}
	return s.leave(ctx, t, repository, group, buildID)
}

func (s *Service) leave(ctx context.Context, t *store.Tx, repository int64, group, buildID string) error {
	g := store.Groups{Tx: t}
	if err := g.Lock(ctx, repository); err != nil {
		return err
	}
	if err := g.Join(ctx, buildID, ""); err != nil {
		return err
	}
	return s.advance(ctx, t, repository, group)
}

// advance gives the turn to the next of a group if nobody has it, and has each of the
// others wait for the one before it. So but one of them has news, however many wait.
func (s *Service) advance(ctx context.Context, t *store.Tx, repository int64, group string) error {
	members, err := store.Groups{Tx: t}.Members(ctx, repository, group)
	if err != nil {
		return err
	}
	members = asPushed(members)
	var opened *store.Build
	if len(members) > 0 && !slices.ContainsFunc(members, func(m *store.Build) bool { return !waits(m) }) {
		opened = members[0]
		opened.State, opened.Reason, opened.Message, opened.Due = schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_REASON_UNSPECIFIED, "", t.Now
		if err := t.SaveBuild(ctx, opened); err != nil {
			return err
		}
	}
	if err := lineUp(ctx, t, members, nil); err != nil || opened == nil {
		return err
	}
	return s.Open(ctx, t, opened)
}
