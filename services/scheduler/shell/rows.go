package shell

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// noCode is the exit code of a shell that did not end by itself.
const noCode = -1

// row is a shell as it is stored.
type row struct {
	id      string
	buildID string
	attempt int32
	person  string
	request *schedulerv1.OpenShellRequest
	opened  *schedulerv1.AuditEntry
	secrets bool
	created time.Time
	begun   bool
	closed  bool
	code    int32
	problem string
}

const rowColumns = `id, build_id, attempt, person, request, opened, secrets, create_time, begun, close_time, exit_code, problem`

func scanRow(from sqldb.Row) (*row, error) {
	r := &row{request: &schedulerv1.OpenShellRequest{}, opened: &schedulerv1.AuditEntry{}}
	var request, opened []byte
	var created, closed int64
	if err := from.Scan(&r.id, &r.buildID, &r.attempt, &r.person, &request, &opened, &r.secrets, &created, &r.begun, &closed, &r.code, &r.problem); err != nil {
		return nil, err
	}
	r.created, r.closed = sqldb.Time(created), closed > 0
	return r, errors.Join(proto.Unmarshal(request, r.request), proto.Unmarshal(opened, r.opened))
}

// read is fault.Conflict where there is no such shell any more.
func read(ctx context.Context, q sqldb.Querier, id string) (*row, error) {
	r, err := scanRow(q.QueryRowContext(ctx, `SELECT `+rowColumns+` FROM shells WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errOver(id)
	}
	if err != nil {
		return nil, fmt.Errorf("shell %s: %w", id, sqldb.Kind(err))
	}
	return r, nil
}

func add(ctx context.Context, t *store.Tx, r *row) error {
	request, err := proto.Marshal(r.request)
	if err != nil {
		return err
	}
	opened, err := proto.Marshal(r.opened)
	if err != nil {
		return err
	}
	now := sqldb.Micros(t.Now)
	return t.Exec(ctx, `INSERT INTO shells (`+rowColumns+`, alive_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, '', $8)`,
		r.id, r.buildID, r.attempt, r.person, request, opened, r.secrets, now, false, noCode)
}

func scanID(from sqldb.Row) (id string, err error) {
	err = from.Scan(&id)
	return id, err
}

// open are the shells of an attempt.
func open(ctx context.Context, q sqldb.Querier, buildID string, attempt int32) ([]*row, error) {
	return sqldb.Collect(ctx, q, scanRow, `SELECT `+rowColumns+` FROM shells WHERE build_id = $1 AND attempt = $2 AND close_time = 0 ORDER BY create_time`, buildID, attempt)
}

// alive notes that who has opened a shell is there.
func (s *Service) alive(ctx context.Context, id string) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return t.Exec(ctx, `UPDATE shells SET alive_time = $2 WHERE id = $1`, id, sqldb.Micros(t.Now))
	})
}

// abandoned are the shells of which nobody is there.
func (s *Service) abandoned(ctx context.Context) ([]string, error) {
	ids, err := sqldb.Collect(ctx, s.store.DB.Read(), scanID, `SELECT id FROM shells WHERE close_time = 0 AND alive_time < $1`,
		sqldb.Micros(s.store.Now().Add(-aliveFor)))
	return ids, sqldb.Kind(err)
}

// begin gives a shell of an attempt to its runner, once.
func (s *Service) begin(ctx context.Context, a *store.Attempt, id string) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		begun, err := t.ExecContext(ctx, `UPDATE shells SET begun = $4 WHERE id = $1 AND build_id = $2 AND attempt = $3 AND NOT begun AND close_time = 0`,
			id, a.BuildID, a.Number, true)
		if err != nil {
			return err
		}
		if n, err := begun.RowsAffected(); n == 0 || err != nil {
			return errors.Join(err, fault.Newf(fault.Conflict, "attempt %s has no shell %s that waits", a.Name(), id))
		}
		return nil
	})
}

// close closes a shell that is open, and says so in the audit log.
func (s *Service) close(ctx context.Context, id string, code int32, problem string) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		closed, err := t.ExecContext(ctx, `UPDATE shells SET close_time = $2, exit_code = $3, problem = $4 WHERE id = $1 AND close_time = 0`,
			id, sqldb.Micros(t.Now), code, problem)
		if err != nil {
			return err
		}
		if n, err := closed.RowsAffected(); n == 0 || err != nil {
			return err
		}
		r, err := read(ctx, t, id)
		if err != nil {
			return err
		}
		told := proto.CloneOf(r.opened)
		told.Action, told.Detail = schedulerv1.AuditEntry_ACTION_CLOSE_SHELL, "after "+t.Now.Sub(r.created).Round(time.Second).String()
		if code != noCode {
			told.Detail += fmt.Sprintf(", exit code %d", code)
		}
		if problem != "" {
			told.Detail += ": " + problem
		}
		b, err := store.ReadBuild(ctx, t, r.buildID, "")
		if err != nil {
			return err
		}
		t.Notify(topic(id))
		t.OnCommit(func() { s.log.InfoContext(ctx, "shell closed", "shell", id, "code", code, "because", problem) })
		return audit.Add(ctx, t, b.GetRepository().GetId(), told)
	})
}

// removeClosed removes the shells that were closed some time ago.
func (s *Service) removeClosed(ctx context.Context) error {
	old := sqldb.Micros(s.store.Now().Add(-closedFor))
	ids, err := sqldb.Collect(ctx, s.store.DB.Read(), scanID, `SELECT id FROM shells WHERE close_time > 0 AND close_time < $1`, old)
	if err != nil || len(ids) == 0 {
		return sqldb.Kind(err)
	}
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		for _, id := range ids {
			if err := errors.Join(t.Exec(ctx, `DELETE FROM shell_frames WHERE shell_id = $1`, id), t.Exec(ctx, `DELETE FROM shells WHERE id = $1`, id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// topic is that something of a shell has changed.
func topic(id string) string { return "shell " + id }
