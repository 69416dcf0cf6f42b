// Package audit writes down what people do at the gateway, in the transaction that does it,
// and hands it over to the scheduler, whose audit log is the one there is. An entry stays
// here until the scheduler has it, which knows one that comes twice by its id.
package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	batch = 100
	// lookEvery is how long an entry stays at most that was not handed over at once.
	lookEvery = 5 * time.Second
)

// Deps is what entries are kept and handed over with.
type Deps struct {
	DB        *sqldb.DB
	Scheduler grpc.ClientConnInterface
	Log       *slog.Logger
	Now       func() time.Time
}

// Outbox keeps entries until the scheduler has them.
type Outbox struct {
	deps    Deps
	service schedulerv1.AuditServiceClient
	added   chan struct{}
	refused refusals
}

// New returns an outbox; Run empties it.
func New(deps Deps) *Outbox {
	return &Outbox{deps: deps, service: schedulerv1.NewAuditServiceClient(deps.Scheduler), added: make(chan struct{}, 1), refused: refusals{now: deps.Now}}
}

// Add returns what writes an entry down in a transaction. The entry is of the request or
// the call that ctx belongs to.
func (o *Outbox) Add(e *schedulerv1.AuditEntry) func(ctx context.Context, tx *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		from, caller := rpc.OriginOf(ctx), rpc.Caller(ctx)
		e := proto.CloneOf(e)
		e.CreateTime, e.Address, e.Agent = timestamppb.New(o.deps.Now()), from.Address, from.Agent
		e.Actor, e.Credential = cmp.Or(e.GetActor(), caller.Person), from.Credential
		if e.GetActor() == "" { // the room has let nobody else make the call
			e.Actor, e.Credential = "an administrator", "admin token"
		}
		e.Origin = schedulerv1.AuditEntry_Origin(schedulerv1.AuditEntry_Origin_value["ORIGIN_"+strings.ToUpper(cmp.Or(from.Way, "grpc"))])
		text, err := proto.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO audit_handover (id, entry) VALUES ($1, $2)", rand.Text(), text); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		return nil
	}
}

// Wake has entries handed over that were committed.
func (o *Outbox) Wake() {
	select {
	case o.added <- struct{}{}:
	default:
	}
}

// Write writes an entry down by itself.
func (o *Outbox) Write(ctx context.Context, e *schedulerv1.AuditEntry) error {
	defer o.Wake()
	return sqldb.Kind(o.deps.DB.Write(ctx, o.Add(e)))
}

// Run hands entries over until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		more, err := o.handOver(ctx)
		if err != nil && ctx.Err() == nil {
			o.deps.Log.WarnContext(ctx, "the scheduler did not take entries of the audit log; they are handed over later", "error", err)
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.added:
		case <-tick.C:
		}
	}
}

func (o *Outbox) handOver(ctx context.Context) (more bool, err error) {
	type row struct {
		id    string
		entry []byte
	}
	found, err := sqldb.Collect(ctx, o.deps.DB.Read(), func(r sqldb.Row) (one row, err error) { return one, r.Scan(&one.id, &one.entry) },
		"SELECT id, entry FROM audit_handover LIMIT $1", batch)
	if err != nil || len(found) == 0 {
		return false, sqldb.Kind(err)
	}
	req := &schedulerv1.RecordAuditEntriesRequest{}
	for _, one := range found {
		e := &schedulerv1.AuditEntry{}
		if err := proto.Unmarshal(one.entry, e); err != nil {
			return false, fmt.Errorf("entry %s: %w", one.id, err)
		}
		req.Entries = append(req.Entries, &schedulerv1.RecordAuditEntriesRequest_Entry{HandoverId: one.id, Entry: e})
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := o.service.RecordAuditEntries(ctx, req); err != nil {
		return false, err
	}
	err = o.deps.DB.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, one := range found {
			if _, err := tx.ExecContext(ctx, "DELETE FROM audit_handover WHERE id = $1", one.id); err != nil {
				return err
			}
		}
		return nil
	})
	return err == nil && len(found) == batch, sqldb.Kind(err)
}
