package reporter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// What was told is read back five times within verifyWithin: after five minutes,
// and after four times as long each time. At most sweepMost calls are made per
// sweep and installation: 120 of the 5,000 that GitHub grants in an hour.
const (
	sweepEvery   = time.Minute
	sweepMost    = 2
	verifyFirst  = 5 * time.Minute
	verifyGrowth = 4
	verifyWithin = 24 * time.Hour
)

// reader reads what GitHub shows of the targets of one kind, all of one commit.
type reader func(context.Context, *github.Client, []target) ([]shown, error)

// readers are how what GitHub shows is read back. What is not here is told once,
// and is people's from then on.
func readers() map[reporterv1.Target_Kind]reader {
	return map[reporterv1.Target_Kind]reader{
		reporterv1.Target_KIND_STATUS:     readStatuses,
		reporterv1.Target_KIND_CHECK_RUN:  each(readCheck),
		reporterv1.Target_KIND_DEPLOYMENT: each(readDeployment),
	}
}

func firstVerify(kind reporterv1.Target_Kind, toldAt time.Time) time.Time {
	if readers()[kind] == nil {
		return time.Time{}
	}
	return toldAt.Add(verifyFirst)
}

// nextVerify grows with the time since the target was told; the zero time ends
// it.
func (t *target) nextVerify(now time.Time) time.Time {
	next := t.toldAt.Add(verifyGrowth * max(now.Sub(t.toldAt), verifyFirst))
	if next.Sub(t.toldAt) > verifyWithin {
		return time.Time{}
	}
	return next
}

// sweep reads back what GitHub shows of some targets, and has told again what
// differs. An installation that is short of calls is left alone.
func (s *Service) sweep(ctx context.Context) error {
	some, err := s.store.claimVerify(ctx, s.deps.Now(), s.gate.scarce)
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
// all that one call tells besides, and returns what differs of the target.
func (s *Service) readBack(ctx context.Context, of target) (says string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	group := []target{of}
	if of.kind == reporterv1.Target_KIND_STATUS {
		if group, err = s.store.toldStatuses(ctx, of.repository.GetId(), of.sha); err != nil {
			return "", err
		}
	}
	calls := s.wire(of.installationID)
	client, err := s.client(s.tokens.source(of), calls)
	if err != nil {
		return "", err
	}
	found, err := readers()[of.kind](ctx, client, group)
	for _, c := range calls.made() {
		s.metrics.called(ctx, of.kind, c)
	}
	if err != nil {
		if why := judge(err); why.after > 0 {
			s.gate.refused(of.installationID, why.after)
		}
		return "", err
	}
	now := s.deps.Now()
	for i, was := range group {
		differs := difference(was, found[i])
		err := s.store.change(ctx, was.id, was.kind, was.repository.GetId(), func(t *target) {
			t.verified, t.verify = now, t.nextVerify(now)
			// News that came meanwhile are told anyway.
			if differs == "" || t.version != was.version || t.state != reporterv1.Target_STATE_TOLD {
				return
			}
			t.told = shown{}
			t.schedule(now)
		})
		if err != nil {
			return "", err
		}
		if differs != "" {
			s.deps.Log.WarnContext(ctx, "GitHub shows something else, told again",
				"target", was.id, "sha", was.sha, "context", was.context, "shows", differs)
			s.wake()
		}
		if was.id == of.id {
			says = differs
		}
	}
	return says, nil
}

// difference is what GitHub shows instead of what it was told; "" where that is
// the same. What a deployment said is replaced by GitHub itself when another
// one succeeds.
func difference(t target, found shown) string {
	switch {
	case found == t.want, t.kind == reporterv1.Target_KIND_DEPLOYMENT && found.state == inactive:
		return ""
	case found == (shown{}):
		return "nothing"
	default:
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", found.state, found.description, found.url))
	}
}

// readStatuses reads the newest of each context at a commit.
func readStatuses(ctx context.Context, client *github.Client, group []target) ([]shown, error) {
	found := make([]shown, len(group))
	options := &github.ListOptions{PerPage: largestList}
	for {
		r := group[0].repository
		combined, resp, err := client.Repositories.GetCombinedStatus(ctx, r.GetOwner(), r.GetName(), group[0].sha, options)
		if err != nil {
			return nil, err
		}
		for _, st := range combined.Statuses {
			i := slices.IndexFunc(group, func(t target) bool { return strings.EqualFold(t.context, st.GetContext()) })
			if i >= 0 {
				found[i] = shown{st.GetState(), st.GetDescription(), st.GetTargetURL()}
			}
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return found, nil
		}
	}
}

// each reads one target by itself. What is gone shows nothing.
func each(read func(context.Context, *github.Client, target) (shown, *github.Response, error)) reader {
	return func(ctx context.Context, client *github.Client, group []target) ([]shown, error) {
		found := make([]shown, len(group))
		for i, t := range group {
			one, resp, err := read(ctx, client, t)
			if err != nil && (resp == nil || resp.StatusCode != http.StatusNotFound) {
				return nil, err
			}
			found[i] = one
		}
		return found, nil
	}
}

func readCheck(ctx context.Context, client *github.Client, t target) (shown, *github.Response, error) {
	run, resp, err := client.Checks.GetCheckRun(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID)
	return shownBy(run), resp, err
}

func readDeployment(ctx context.Context, client *github.Client, t target) (shown, *github.Response, error) {
	if t.githubID == 0 { // it was never made, and needs not be
		return t.want, nil, nil
	}
	newest, resp, err := client.Repositories.ListDeploymentStatuses(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID,
		&github.ListOptions{PerPage: 1})
	if resp != nil && resp.StatusCode == http.StatusNotFound { // a person has deleted it, and is not to see it again
		return t.want, resp, nil
	}
	if err != nil || len(newest) == 0 {
		return shown{}, resp, err
	}
	return shown{newest[0].GetState(), newest[0].GetDescription(), newest[0].GetLogURL()}, resp, nil
}

// VerifyTarget reads what GitHub shows of a target.
func (s *Service) VerifyTarget(ctx context.Context, req *reporterv1.VerifyTargetRequest) (*reporterv1.VerifyTargetResponse, error) {
	t, err := s.store.get(ctx, req.GetTargetId())
	switch {
	case err != nil:
		return nil, err
	case readers()[t.kind] == nil:
		return nil, fault.New(fault.Conflict, "a promotion or an answer is not read back: people change it as they like")
	case t.state != reporterv1.Target_STATE_TOLD:
		return nil, fault.New(fault.Conflict, "GitHub has not been told yet; the target says why")
	}
	differs, err := s.readBack(ctx, t)
	if err != nil {
		return nil, judge(err).fault()
	}
	if t, err = s.store.get(ctx, t.id); err != nil {
		return nil, err
	}
	return &reporterv1.VerifyTargetResponse{Target: t.proto(), Difference: differs}, nil
}

// fault is what somebody is told who asked for a call.
func (w setback) fault() error {
	kind := fault.Unavailable
	if w.state == reporterv1.Target_STATE_KEPT || w.state == reporterv1.Target_STATE_PAUSED {
		kind = fault.Conflict
	}
	return fault.New(kind, w.text)
}

// claimVerify takes the targets that are to be read back next, at most sweepMost
// of an installation, none of those to be spared.
func (s *store) claimVerify(ctx context.Context, now time.Time, spare func(installationID int64) bool) ([]target, error) {
	var some []target
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		due, err := query(ctx, tx, scanTarget, `SELECT `+targetColumns+` FROM targets
			WHERE verify > 0 AND verify <= $1 AND state = $2 ORDER BY verify LIMIT 100`+s.db.Dialect.SkipLocked(),
			sqldb.Micros(now), int32(reporterv1.Target_STATE_TOLD))
		if err != nil {
			return err
		}
		taken, commits := map[int64]int{}, map[string]bool{}
		for _, t := range due {
			commit := fmt.Sprintf("%d %s", t.repository.GetId(), t.sha)
			together := t.kind == reporterv1.Target_KIND_STATUS && commits[commit] // one call reads them all
			if together || taken[t.installationID] == sweepMost || spare(t.installationID) {
				continue
			}
			taken[t.installationID]++
			commits[commit] = commits[commit] || t.kind == reporterv1.Target_KIND_STATUS
			// Should this one come to nothing, the next one does.
			t.verify = t.nextVerify(now)
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

// toldStatuses are the statuses of a commit that GitHub was told the newest of.
func (s *store) toldStatuses(ctx context.Context, repositoryID int64, sha string) ([]target, error) {
	found, err := query(ctx, s.db.Read(), scanTarget, `SELECT `+targetColumns+` FROM targets
		WHERE repository_id = $1 AND sha = $2 AND kind = $3 AND state = $4`,
		repositoryID, sha, int32(reporterv1.Target_KIND_STATUS), int32(reporterv1.Target_STATE_TOLD))
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("statuses of %s: %w", sha, err))
	}
	return found, nil
}
