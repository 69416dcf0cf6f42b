package reporter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// What was told or refused is read back five times within verifyWithin: after five
// minutes, and after four times as long each time. At most verifyMost calls are made per
// round and installation: 120 of the 5,000 that GitHub grants in an hour.
const (
	verifyEvery  = time.Minute
	verifyMost   = 2
	verifyFirst  = 5 * time.Minute
	verifyGrowth = 4
	verifyWithin = 24 * time.Hour
)

// firstVerify is when to read back a target that has just been told; the zero
// time where its kind is not read back.
func (t *target) firstVerify(now time.Time) time.Time {
	if channelOf(t.kind).read == nil {
		return time.Time{}
	}
	return now.Add(verifyFirst)
}

// nextVerify is when to read back a target that is read back now. The pauses grow
// with the time since it was told or refused; the zero time ends them.
func (t *target) nextVerify(now time.Time) time.Time {
	since := t.publishedAt
	if !t.refusedSince.IsZero() {
		since = t.refusedSince
	}
	next := since.Add(verifyGrowth * max(now.Sub(since), verifyFirst))
	if next.Sub(since) > verifyWithin {
		return time.Time{}
	}
	return next
}

// verify reads back what GitHub shows of some targets, and has told again what
// differs. An installation that is short of calls is left alone.
func (s *Service) verify(ctx context.Context) error {
	some, err := s.store.claimVerify(ctx, s.deps.Now(), s.limiter.scarce)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range some {
		if _, err := s.readBack(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("target %s: %w", t.id, err))
		}
	}
	return errors.Join(errs...)
}

// readBack compares what GitHub shows with what it was told, of a target and of
// all that the same call reads, and returns what differs of the target.
func (s *Service) readBack(ctx context.Context, of target) (differs string, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	group, kind := []target{of}, channelOf(of.kind)
	if kind.together {
		if group, err = s.store.verifiedTogether(ctx, of); err != nil {
			return "", err
		}
	}
	calls := s.recorder(of.installationID)
	client, err := s.client(s.tokens.sourceFor(of), calls)
	if err != nil {
		return "", err
	}
	found, err := kind.read(ctx, client, group)
	for _, c := range calls.recorded() {
		s.metrics.called(ctx, of.kind, c)
	}
	if err != nil {
		if why := classify(err); why.retryAfter > 0 {
			s.limiter.recordRefusal(of.installationID, why.retryAfter)
		}
		return "", err
	}
	for i, was := range group {
		instead := difference(was, found[i])
		if err := s.verified(ctx, was, instead); err != nil {
			return "", err
		}
		if was.id == of.id {
			differs = instead
		}
	}
	return differs, nil
}

// verified stores that a target was read back. Where GitHub shows something else
// instead, it is told again. Where GitHub shows what it has refused, it was told.
func (s *Service) verified(ctx context.Context, was target, instead string) error {
	now := s.deps.Now()
	err := s.store.change(ctx, was.id, was.kind, was.repository.GetId(), func(t *target) {
		t.verifiedAt, t.verifyAt = now, t.nextVerify(now)
		shown, refused := instead == "", !t.refusedSince.IsZero()
		switch {
		case t.version != was.version, !t.lease.IsZero(): // news are told anyway
		case refused && shown:
			t.succeed(t.version, t.desired, now)
		case refused && t.state == reporterv1.Target_STATE_KEPT:
			t.state, t.due = reporterv1.Target_STATE_PENDING, now
		case !shown && t.state == reporterv1.Target_STATE_TOLD:
			t.published = display{}
			t.schedule(now)
		}
	})
	if err != nil || instead == "" {
		return err
	}
	s.deps.Log.WarnContext(ctx, "GitHub shows something else than it should; it is told again",
		"target", was.id, "sha", was.sha, "context", was.context, "shows", instead)
	s.wake()
	return nil
}

// difference is what GitHub shows instead of what it was told; "" where that is
// the same. GitHub itself replaces what a deployment said by inactive when
// another one succeeds.
func difference(t target, found display) string {
	switch {
	case found == t.desired, found.state == stateInactive:
		return ""
	case found == (display{}):
		return "nothing"
	default:
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", found.state, found.description, found.url))
	}
}

// VerifyTarget reads what GitHub shows of a target.
func (s *Service) VerifyTarget(ctx context.Context, req *reporterv1.VerifyTargetRequest) (*reporterv1.VerifyTargetResponse, error) {
	t, err := s.store.get(ctx, req.GetTargetId())
	switch {
	case err != nil:
		return nil, err
	case channelOf(t.kind).read == nil:
		return nil, fault.New(fault.Conflict, "a promotion or an answer is not read back: people change it as they like")
	case t.state != reporterv1.Target_STATE_TOLD:
		return nil, fault.New(fault.Conflict, "GitHub has not been told yet; the target says why")
	}
	differs, err := s.readBack(ctx, t)
	if err != nil {
		return nil, classify(err).fault()
	}
	if t, err = s.store.get(ctx, t.id); err != nil {
		return nil, err
	}
	return &reporterv1.VerifyTargetResponse{Target: t.proto(), Difference: differs}, nil
}

// claimVerify takes the targets that are to be read back next, at most verifyMost
// calls' worth of an installation, none of those to be spared.
func (s *store) claimVerify(ctx context.Context, now time.Time, spare func(installationID int64) bool) ([]target, error) {
	var some []target
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		due, err := sqldb.Collect(ctx, tx, scanTarget, `SELECT `+targetColumns+` FROM targets
			WHERE verify > 0 AND verify <= $1 AND (state = $2 OR refused > 0) AND lease = 0 ORDER BY verify LIMIT 100`+s.db.Dialect.SkipLocked(),
			sqldb.Micros(now), int32(reporterv1.Target_STATE_TOLD))
		if err != nil {
			return err
		}
		taken, commits := map[int64]int{}, map[string]bool{}
		for _, t := range due {
			commit := fmt.Sprintf("%d %d %s", t.kind, t.repository.GetId(), t.sha)
			together := channelOf(t.kind).together // one call reads all of the commit
			if together && commits[commit] || taken[t.installationID] == verifyMost || spare(t.installationID) {
				continue
			}
			taken[t.installationID]++
			commits[commit] = true
			// Should this call come to nothing, the next one does.
			t.verifyAt = t.nextVerify(now)
			if err := save(ctx, tx, t); err != nil {
				return err
			}
			some = append(some, t)
		}
		return nil
	})
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("claim targets to read back: %w", err))
	}
	return some, nil
}

// verifiedTogether are the targets of a commit and a kind of which GitHub was told
// the newest, or has refused it.
func (s *store) verifiedTogether(ctx context.Context, of target) ([]target, error) {
	found, err := sqldb.Collect(ctx, s.db.Read(), scanTarget, `SELECT `+targetColumns+` FROM targets
		WHERE repository_id = $1 AND sha = $2 AND kind = $3 AND (state = $4 OR refused > 0)`,
		of.repository.GetId(), of.sha, int32(of.kind), int32(reporterv1.Target_STATE_TOLD))
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("targets of %s: %w", of.sha, err))
	}
	return found, nil
}
