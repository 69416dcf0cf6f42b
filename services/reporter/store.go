package reporter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/wording"
)

// store keeps targets.
type store struct{ db *sqldb.DB }

const targetColumns = `id, kind, repository_id, owner, name, installation_id, sha, context, head, base, build_id, traceparent,
	version, want_state, want_description, want_url, told_version, told_state, told_description, told_url, told, pull_request,
	state, due, lease, attempts, error, updated, payload, github_id, begun, since, verify, verified, refused`

func scanTarget(row sqldb.Row) (target, error) {
	t := target{repository: &eventv1.Repository{}}
	var published, dueAt, lease, updated, since, verify, verified, refused int64
	err := row.Scan(&t.id, &t.kind, &t.repository.Id, &t.repository.Owner, &t.repository.Name, &t.installationID, &t.sha, &t.context,
		&t.head, &t.base, &t.buildID, &t.traceparent,
		&t.version, &t.desired.state, &t.desired.description, &t.desired.url,
		&t.publishedVersion, &t.published.state, &t.published.description, &t.published.url, &published, &t.pullRequest,
		&t.state, &dueAt, &lease, &t.attempts, &t.err, &updated, &t.payload, &t.githubID, &t.begun, &since, &verify, &verified, &refused)
	t.publishedAt, t.due, t.lease, t.updated = sqldb.Time(published), sqldb.Time(dueAt), sqldb.Time(lease), sqldb.Time(updated)
	t.unpublishedSince, t.verifyAt, t.verifiedAt, t.refusedSince = sqldb.Time(since), sqldb.Time(verify), sqldb.Time(verified), sqldb.Time(refused)
	return t, err
}

// change locks a target, has it changed and stores it. A target that is not
// there yet is new: of the given kind and repository, with nothing to tell.
func (s *store) change(ctx context.Context, id string, kind reporterv1.Target_Kind, repositoryID int64, change func(*target)) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return s.changeIn(ctx, tx, id, kind, repositoryID, change)
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("change target %s: %w", id, err))
	}
	return nil
}

func (s *store) changeIn(ctx context.Context, tx *sql.Tx, id string, kind reporterv1.Target_Kind, repositoryID int64, change func(*target)) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO targets (id, kind, repository_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		id, int32(kind), repositoryID); err != nil {
		return err
	}
	t, err := scanTarget(tx.QueryRowContext(ctx, `SELECT `+targetColumns+` FROM targets WHERE id = $1`+s.db.Dialect.ForUpdate(), id))
	if err != nil {
		return err
	}
	change(&t)
	return save(ctx, tx, t)
}

// siblings locks and returns the targets of a commit's context: one status, and
// a check run or a deployment for each of its builds. Who reports for the same
// context at the same time waits.
func (s *store) siblings(ctx context.Context, tx *sql.Tx, repositoryID int64, sha, name string) ([]target, error) {
	if s.db.Dialect == sqldb.Postgres { // rows that are not there yet cannot be locked
		key := fmt.Sprintf("%d %s %s", repositoryID, sha, name)
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key); err != nil {
			return nil, err
		}
	}
	return sqldb.Collect(ctx, tx, scanTarget, `SELECT `+targetColumns+` FROM targets
		WHERE repository_id = $1 AND sha = $2 AND context = $3`+s.db.Dialect.ForUpdate(), repositoryID, sha, name)
}

const saveTarget = `INSERT INTO targets (` + targetColumns + `, unfinished)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)
	ON CONFLICT (id) DO UPDATE SET
		owner = excluded.owner, name = excluded.name, installation_id = excluded.installation_id, sha = excluded.sha,
		context = excluded.context, head = excluded.head, base = excluded.base, build_id = excluded.build_id,
		traceparent = excluded.traceparent, version = excluded.version, want_state = excluded.want_state,
		want_description = excluded.want_description, want_url = excluded.want_url, told_version = excluded.told_version,
		told_state = excluded.told_state, told_description = excluded.told_description, told_url = excluded.told_url,
		told = excluded.told, pull_request = excluded.pull_request, state = excluded.state, due = excluded.due,
		lease = excluded.lease, attempts = excluded.attempts, error = excluded.error, updated = excluded.updated,
		payload = excluded.payload, github_id = excluded.github_id, begun = excluded.begun, since = excluded.since,
		verify = excluded.verify, verified = excluded.verified, refused = excluded.refused, unfinished = excluded.unfinished`

// save stores a target, new or changed.
func save(ctx context.Context, tx *sql.Tx, t target) error {
	_, err := tx.ExecContext(ctx, saveTarget,
		t.id, int32(t.kind), t.repository.GetId(), t.repository.GetOwner(), t.repository.GetName(), t.installationID, t.sha, t.context,
		t.head, t.base, t.buildID, t.traceparent,
		t.version, t.desired.state, t.desired.description, t.desired.url,
		t.publishedVersion, t.published.state, t.published.description, t.published.url, sqldb.Micros(t.publishedAt), t.pullRequest,
		int32(t.state), sqldb.Micros(t.due), sqldb.Micros(t.lease), t.attempts, t.err, sqldb.Micros(t.updated),
		t.payload, t.githubID, t.begun, sqldb.Micros(t.unpublishedSince), sqldb.Micros(t.verifyAt), sqldb.Micros(t.verifiedAt), sqldb.Micros(t.refusedSince), t.desired.unfinished())
	return err
}

// claimOrder is final states before others, then totals and what failed before the
// jobs that did not, then those that are due longest.
const claimOrder = `unfinished, CASE WHEN context LIKE 'forge/%/%' AND want_state IN ('success', 'neutral', 'skipped', 'pending', 'queued', 'in_progress')
	THEN 1 ELSE 0 END, due`

// claim leases due targets until the given moment, in the claim order. acquire says whether a target may be told
// now; if not, no other of its installation is claimed either. Who held a lease
// that ran out has died while telling: nobody knows what GitHub was told.
func (s *store) claim(ctx context.Context, limit int, now, until time.Time, acquire func(target) bool) ([]target, error) {
	var claimed []target
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		args, held := []any{sqldb.Micros(now), -1}, map[int64]bool{}
		for round := true; round && len(claimed) < limit; {
			due, err := sqldb.Collect(ctx, tx, scanTarget, `SELECT `+targetColumns+` FROM targets
				WHERE due > 0 AND due <= $1 AND lease <= $1 AND installation_id NOT IN (`+sqldb.Marks(2, len(args)-1)+`)
				ORDER BY `+claimOrder+` LIMIT `+strconv.Itoa(limit-len(claimed))+s.db.Dialect.SkipLocked(), args...)
			if err != nil {
				return err
			}
			round = false // unless there may be more, of other installations
			for _, t := range due {
				if held[t.installationID] {
					continue
				}
				if !acquire(t) {
					held[t.installationID], round = true, true
					args = append(args, t.installationID)
					continue
				}
				if !t.lease.IsZero() {
					t.published = display{}
				}
				t.lease = until
				taken := t
				taken.begun = true
				if err := save(ctx, tx, taken); err != nil {
					return err
				}
				claimed = append(claimed, t)
			}
		}
		return nil
	})
	if err != nil {
		return claimed, sqldb.Kind(fmt.Errorf("claim targets: %w", err))
	}
	return claimed, nil
}

// finishAttempt stores how an attempt ended and what it called, unless the lease
// was lost meanwhile, and returns the target as it is then. A deployment that has
// just succeeded replaces the earlier ones of its environment.
func (s *store) finishAttempt(ctx context.Context, claimed target, calls []call, change func(*target)) (finished target, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		err := s.changeIn(ctx, tx, claimed.id, claimed.kind, claimed.repository.GetId(), func(t *target) {
			if t.lease.Equal(claimed.lease) {
				change(t)
			}
			finished = *t
		})
		if err == nil {
			err = addCalls(ctx, tx, claimed.id, calls)
		}
		if err == nil && finished.replaces() {
			_, err = tx.ExecContext(ctx, `UPDATE targets SET want_state = $1, want_description = $2, due = $3, since = $3, state = $4
				WHERE kind = 4 AND repository_id = $5 AND context = $6 AND want_state = 'success' AND github_id > 0 AND github_id < $7`,
				stateInactive, "Replaced by "+wording.Short(finished.sha), sqldb.Micros(finished.publishedAt), int32(reporterv1.Target_STATE_PENDING),
				finished.repository.GetId(), finished.context, finished.githubID)
		}
		return err
	})
	if err != nil {
		return finished, sqldb.Kind(fmt.Errorf("finish attempt of target %s: %w", claimed.id, err))
	}
	return finished, nil
}

// freeLeases makes due what a reporter was telling that has died. A SQLite file
// has one reporter, so at its start every lease is such a one. On PostgreSQL other
// replicas hold leases, and one of a dead replica runs out by itself.
func (s *store) freeLeases(ctx context.Context, now time.Time) error {
	return s.db.FreeLeases(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE targets SET lease = 0, due = $1, told_state = '', told_description = '', told_url = ''
			WHERE lease > 0`, sqldb.Micros(now))
		return err
	})
}

// resume has what waits in one of the states for an installation or a repository
// (0: any) tried at once.
func (s *store) resume(ctx context.Context, installationID, repositoryID int64, now time.Time, states ...reporterv1.Target_State) error {
	where, args := in("state", states, sqldb.Micros(now), int32(reporterv1.Target_STATE_PENDING), installationID, repositoryID)
	return s.exec(ctx, "resume targets", `UPDATE targets SET due = $1, updated = $1, state = $2, attempts = 0, refused = 0
		WHERE CAST($3 AS BIGINT) IN (0, installation_id) AND CAST($4 AS BIGINT) IN (0, repository_id) AND `+where, args...)
}

// abandon keeps all that an installation was still to be told for a person.
func (s *store) abandon(ctx context.Context, installationID int64, why string, now time.Time) error {
	return s.exec(ctx, "abandon targets", `UPDATE targets SET due = 0, verify = 0, updated = $1, state = $2, error = $3
		WHERE installation_id = $4 AND state NOT IN ($2, $5)`,
		sqldb.Micros(now), int32(reporterv1.Target_STATE_KEPT), why, installationID, int32(reporterv1.Target_STATE_TOLD))
}

// move renames a repository in all its targets.
func (s *store) move(ctx context.Context, to *eventv1.Repository, installationID int64) error {
	return s.exec(ctx, "move targets", `UPDATE targets SET owner = $2, name = $3,
			installation_id = COALESCE(NULLIF(CAST($4 AS BIGINT), 0), installation_id) WHERE repository_id = $1`,
		to.GetId(), to.GetOwner(), to.GetName(), installationID)
}

func (s *store) exec(ctx context.Context, what, statement string, args ...any) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// get is fault.NotFound, with a text for people, where there is none.
func (s *store) get(ctx context.Context, id string) (target, error) {
	t, err := scanTarget(s.db.Read().QueryRowContext(ctx, `SELECT `+targetColumns+` FROM targets WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return target{}, fault.Newf(fault.NotFound, "no target %s: nothing was ever reported for it, or it was pruned since", id)
	}
	if err != nil {
		return target{}, sqldb.Kind(fmt.Errorf("read target %s: %w", id, err))
	}
	return t, nil
}

// page says which targets a list shows: those that changed before the last one of
// the page before.
type page struct {
	after       cursor
	owner, name string
	sha         string
	states      []reporterv1.Target_State
	limit       int
}

// list returns a page of targets, the latest changed first.
func (s *store) list(ctx context.Context, p page) ([]target, error) {
	where, args := []string{"TRUE"}, []any{}
	add := func(wanted bool, condition string, values ...any) {
		if wanted {
			for _, value := range values {
				args = append(args, value)
				condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
			}
			where = append(where, condition)
		}
	}
	add(p.after.id != "", "(updated < ? OR (updated = ? AND id < ?))", p.after.updated, p.after.updated, p.after.id)
	add(p.owner != "", "lower(owner) = lower(?) AND lower(name) = lower(?)", p.owner, p.name)
	add(p.sha != "", "sha = ?", p.sha)
	if len(p.states) > 0 {
		var condition string
		condition, args = in("state", p.states, args...)
		where = append(where, condition)
	}
	args = append(args, p.limit)
	found, err := sqldb.Collect(ctx, s.db.Read(), scanTarget, `SELECT `+targetColumns+` FROM targets WHERE `+strings.Join(where, " AND ")+
		fmt.Sprintf(" ORDER BY updated DESC, id DESC LIMIT $%d", len(args)), args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("list targets: %w", err))
	}
	return found, nil
}

// in is a condition on one of several values, which it adds to args.
func in(column string, values []reporterv1.Target_State, args ...any) (condition string, all []any) {
	all = slices.Clone(args)
	for _, value := range values {
		all = append(all, int32(value))
	}
	return column + " IN (" + sqldb.Marks(len(args)+1, len(values)) + ")", all
}
