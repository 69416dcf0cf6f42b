package audit

import (
	"cmp"
	"context"
	"database/sql"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Administrator is who has the admin token, where GitHub's logins are shown. No login has
// a blank.
const Administrator = "an administrator"

// longestText bounds each text of an entry, in bytes.
const longestText = 500

// Actor is who makes the call that ctx belongs to, as entries and builds name them.
func Actor(ctx context.Context) string {
	caller := rpc.Caller(ctx)
	if caller.Bound.Name != "" {
		return "token " + caller.Bound.Name
	}
	return cmp.Or(caller.Person, Administrator)
}

// Add stores an entry about a repository, 0 for none, in the transaction of what it tells
// of. Where the entry has no origin, it is of the call that ctx belongs to.
func Add(ctx context.Context, t *store.Tx, repositoryID int64, e *schedulerv1.AuditEntry) error {
	e = proto.CloneOf(e)
	if e.GetOrigin() == schedulerv1.AuditEntry_ORIGIN_UNSPECIFIED {
		Called(ctx, e)
	}
	e.CreateTime = timestamppb.New(t.Now)
	return insert(ctx, t, sql.NullString{}, repositoryID, e)
}

// Called fills in who makes a call, and from where.
func Called(ctx context.Context, e *schedulerv1.AuditEntry) {
	caller, from := rpc.Caller(ctx), rpc.OriginOf(ctx)
	e.Actor, e.Address, e.Agent = cmp.Or(e.GetActor(), Actor(ctx)), from.Address, from.Agent
	e.Origin = schedulerv1.AuditEntry_Origin(schedulerv1.AuditEntry_Origin_value["ORIGIN_"+strings.ToUpper(cmp.Or(from.Way, "grpc"))])
	switch {
	case caller.Bound.Name != "":
		e.Credential = "repository token " + caller.Bound.Name
	case caller.Person != "":
		e.Credential = from.Credential
	case caller.Admin:
		e.Credential = "admin token"
	}
}

const columns = `create_time, action, actor, origin, credential, address, agent, repository_id, repository, build_id, environment, subject, detail, refused`

func insert(ctx context.Context, t *store.Tx, handoverID sql.NullString, repositoryID int64, e *schedulerv1.AuditEntry) error {
	return t.Exec(ctx, `INSERT INTO audit_entries (handover_id, `+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT DO NOTHING`,
		handoverID, sqldb.Micros(e.GetCreateTime().AsTime()), int64(e.GetAction()), line(e.GetActor()), int64(e.GetOrigin()), line(e.GetCredential()), line(e.GetAddress()),
		line(e.GetAgent()), repositoryID, line(e.GetRepository()), line(e.GetBuildId()), line(e.GetEnvironment()), line(e.GetSubject()), line(e.GetDetail()), e.GetRefused())
}

// line is a text as an entry has it: bounded, in one line, and without what a terminal
// would take for a command.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return strings.ToValidUTF8(text[:min(len(text), longestText)], "")
}

// Prune removes entries from before a time. It returns how many there were, at most so
// many.
func Prune(ctx context.Context, t *store.Tx, before time.Time, limit int) (int, error) {
	if err := t.Exec(ctx, `UPDATE audit_retention SET before_time = $1 WHERE before_time < $1`, sqldb.Micros(before)); err != nil {
		return 0, err
	}
	removed, err := t.ExecContext(ctx, `DELETE FROM audit_entries WHERE number IN (
		SELECT number FROM audit_entries WHERE create_time < $1 ORDER BY create_time, number LIMIT $2)`, sqldb.Micros(before), limit)
	if err != nil {
		return 0, err
	}
	n, err := removed.RowsAffected()
	return int(n), err
}
