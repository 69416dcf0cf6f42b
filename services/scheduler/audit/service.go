package audit

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// Service serves AuditService.
type Service struct {
	schedulerv1.UnimplementedAuditServiceServer
	store        *store.Store
	repositories configv1.RepositoryServiceClient
}

// New returns what serves the audit log. Config tells which repository a name is.
func New(store *store.Store, config grpc.ClientConnInterface) *Service {
	return &Service{store: store, repositories: configv1.NewRepositoryServiceClient(config)}
}

// ListAuditEntries lists what people did.
func (s *Service) ListAuditEntries(ctx context.Context, req *schedulerv1.ListAuditEntriesRequest) (*schedulerv1.ListAuditEntriesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var before, number int64
	if err := rpc.ParsePageToken(req.GetPageToken(), &before, &number); err != nil {
		return nil, err
	}
	query, args, err := s.query(ctx, req, before, number, size+1)
	if err != nil {
		return nil, err
	}
	found, err := sqldb.Collect(ctx, s.store.DB.Read(), scan, query, args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("list the audit log: %w", err))
	}
	answer := &schedulerv1.ListAuditEntriesResponse{}
	answer.Entries, answer.NextPageToken = rpc.CutPage(found, size, func(last *schedulerv1.AuditEntry) []any {
		return []any{sqldb.Micros(last.GetCreateTime().AsTime()), numberOf(last)}
	})
	return answer, nil
}

// query is the one of a list, from before an entry on where its number is not 0.
func (s *Service) query(ctx context.Context, req *schedulerv1.ListAuditEntriesRequest, before, number int64, limit int) (string, []any, error) {
	var where []string
	var args []any
	arg := func(value any) string {
		args = append(args, value)
		return "$" + strconv.Itoa(len(args))
	}
	if req.GetRepository() != "" {
		id, err := s.repositoryID(ctx, req.GetRepository())
		if err != nil {
			return "", nil, err
		}
		if id != 0 {
			where = append(where, "repository_id = "+arg(id))
		} else {
			where = append(where, "lower(repository) = "+arg(strings.ToLower(req.GetRepository())))
		}
	}
	if req.GetActor() != "" {
		where = append(where, "lower(actor) = "+arg(strings.ToLower(req.GetActor())))
	}
	if len(req.GetActions()) > 0 {
		var actions []string
		for _, action := range req.GetActions() {
			actions = append(actions, strconv.Itoa(int(action)))
		}
		where = append(where, "action IN ("+strings.Join(actions, ", ")+")")
	}
	for _, bound := range []struct {
		name, compare string
		at            *timestamppb.Timestamp
	}{{"since", ">=", req.GetSince()}, {"until", "<", req.GetUntil()}} {
		if bound.at == nil {
			continue
		}
		if err := bound.at.CheckValid(); err != nil {
			return "", nil, fault.Newf(fault.Invalid, "%s: %w", bound.name, err)
		}
		where = append(where, "create_time "+bound.compare+" "+arg(sqldb.Micros(bound.at.AsTime())))
	}
	if number != 0 {
		where = append(where, "(create_time, number) < ("+arg(before)+", "+arg(number)+")")
	}
	query := "SELECT number, " + columns + " FROM audit_entries"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return query + " ORDER BY create_time DESC, number DESC LIMIT " + arg(limit), args, nil
}

// repositoryID is the repository that GitHub has under a name. A name may have been
// another's before, whose entries are not for who has it now: they are found by the name,
// 0, where GitHub has none of it, and by who has the admin token alone.
func (s *Service) repositoryID(ctx context.Context, repository string) (int64, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return 0, err
	}
	answer, err := s.repositories.GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: owner, Name: name})
	if fault.Is(err, fault.NotFound) && rpc.Caller(ctx).Admin {
		return 0, nil
	}
	return answer.GetRepository().GetId(), err
}

func numberOf(e *schedulerv1.AuditEntry) int64 {
	number, _ := strconv.ParseInt(e.GetId(), 10, 64) // scan wrote it
	return number
}

func scan(row sqldb.Row) (*schedulerv1.AuditEntry, error) {
	e := &schedulerv1.AuditEntry{}
	var number, created, action, origin, repositoryID int64
	err := row.Scan(&number, &created, &action, &e.Actor, &origin, &e.Credential, &e.Address, &e.Agent, &repositoryID, &e.Repository,
		&e.BuildId, &e.Environment, &e.Subject, &e.Detail, &e.Refused)
	e.Id, e.CreateTime = strconv.FormatInt(number, 10), timestamppb.New(sqldb.Time(created))
	e.Action, e.Origin = schedulerv1.AuditEntry_Action(action), schedulerv1.AuditEntry_Origin(origin) //nolint:gosec // they were written as such
	return e, err
}

// gatewaysOwn are the actions that the gateway hands over; of others it tells only that
// they were refused.
var gatewaysOwn = []schedulerv1.AuditEntry_Action{
	schedulerv1.AuditEntry_ACTION_REDELIVER, schedulerv1.AuditEntry_ACTION_CREATE_TOKEN, schedulerv1.AuditEntry_ACTION_DELETE_TOKEN,
	schedulerv1.AuditEntry_ACTION_SIGN_IN, schedulerv1.AuditEntry_ACTION_SIGN_OUT,
}

// RecordAuditEntries takes over what the gateway has written down.
func (s *Service) RecordAuditEntries(ctx context.Context, req *schedulerv1.RecordAuditEntriesRequest) (*schedulerv1.RecordAuditEntriesResponse, error) {
	for _, given := range req.GetEntries() {
		switch e := given.GetEntry(); {
		case given.GetHandoverId() == "" || e.GetCreateTime().CheckValid() != nil:
			return nil, fault.New(fault.Invalid, "an entry needs a handover_id and a time")
		case !e.GetRefused() && !slices.Contains(gatewaysOwn, e.GetAction()):
			return nil, fault.Newf(fault.Invalid, "%s is no action of the gateway's own", e.GetAction())
		}
	}
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		for _, given := range req.GetEntries() {
			if err := insert(ctx, t, sql.NullString{String: given.GetHandoverId(), Valid: true}, 0, given.GetEntry()); err != nil {
				return err
			}
		}
		return nil
	})
	return &schedulerv1.RecordAuditEntriesResponse{}, err
}
