package concurrency

import (
	"context"
	"fmt"
	"slices"

	"github.com/forge-ci/forge/services/scheduler/store"
)

// Overtaken is the build of the newest push to the ref of a new build, where that one is
// older, and in a group whose newest cancels the others: webhooks come in any order. The new
// build is to be cancelled then, whether the other has ended or not; nil: it may enter.
func (s *Service) Overtaken(ctx context.Context, t *store.Tx, b *store.Build) (newer *store.Build, err error) {
	name, key := s.groupOf(b)
	if key == "" || b.GetPushTime() == nil {
		return nil, nil //nolint:nilnil // none is an answer
	}
	g := store.Groups{Tx: t}
	if err := g.Lock(ctx, b.GetRepository().GetId()); err != nil {
		return nil, err
	}
	pushes, err := g.Pushes(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, other := range pushes {
		cancels := other.GetConcurrencyGroup() == name && other.Config.GetConcurrency().GetCancel()
		if cancels && pushedBefore(b, other) && (newer == nil || pushedBefore(newer, other)) {
			newer = other
		}
	}
	if newer != nil {
		b.ConcurrencyGroup, b.SupersededBy = name, newer.GetId()
	}
	return newer, nil
}

// TookItsPlace is what is said of a build of a group that another cancels.
func TookItsPlace(by *store.Build) string {
	return fmt.Sprintf("build %s of concurrency group %s took its place", by.GetId(), clip(by.GetConcurrencyGroup()))
}

// pushedBefore reports whether a build is of an older push to the same ref than another.
// GitHub tells the second of a push; within one second, the commit that was there before.
func pushedBefore(a, b *store.Build) bool {
	if a.GetPushTime() == nil || b.GetPushTime() == nil || a.GetRef() != b.GetRef() {
		return false
	}
	if order := a.GetPushTime().AsTime().Compare(b.GetPushTime().AsTime()); order != 0 {
		return order < 0
	}
	return b.GetBeforeSha() == a.GetSha() && a.GetBeforeSha() != b.GetSha()
}

// asPushed is the line of those who are in a group, given in the order of their numbers:
// one of an older push comes before the newer of its ref, all others keep their order.
func asPushed(members []*store.Build) []*store.Build {
	line := make([]*store.Build, 0, len(members))
	for _, m := range members {
		at := slices.IndexFunc(line, func(other *store.Build) bool { return pushedBefore(m, other) })
		if at < 0 {
			at = len(line)
		}
		line = slices.Insert(line, at, m)
	}
	return line
}

// older are those of a group that a build may take the place of: all but newer pushes.
func older(b *store.Build, members []*store.Build) []*store.Build {
	return slices.DeleteFunc(slices.Clone(members), func(m *store.Build) bool { return pushedBefore(b, m) })
}

// lineUp has each that waits do so for the one before it, and stores those that waited for
// another, but for a new one, which is not stored yet. Who has the turn may be newer than
// one that was approved since.
func lineUp(ctx context.Context, t *store.Tx, members []*store.Build, newcomer *store.Build) error {
	var before *store.Build
	for _, m := range members {
		if !waits(m) {
			before = m
		}
	}
	for _, m := range members {
		if !waits(m) {
			continue
		}
		if before != nil && waitFor(m, before) && m != newcomer {
			if err := t.SaveBuild(ctx, m); err != nil {
				return err
			}
		}
		before = m
	}
	return nil
}
