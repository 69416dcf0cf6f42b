package content

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// ListCaches lists caches.
func (s *Service) ListCaches(ctx context.Context, req *schedulerv1.ListCachesRequest) (*schedulerv1.ListCachesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var repositoryID int64
	answer := &schedulerv1.ListCachesResponse{}
	if req.GetRepository() != "" {
		if repositoryID, err = s.repositoryID(ctx, req.GetRepository()); err != nil || repositoryID == 0 {
			return answer, err
		}
		if answer.StoredBytes, err = taken(ctx, s.store.DB.Read(), repositoryID, kindCache); err != nil {
			return nil, sqldb.Kind(err)
		}
	}
	var afterRepository, afterUse int64
	var afterID string
	if err := rpc.ParsePageToken(req.GetPageToken(), &afterRepository, &afterUse, &afterID); err != nil {
		return nil, err
	}
	found, err := s.all(ctx, `kind = 1 AND ($1 = 0 OR repository_id = $1)
		AND ($4 = '' OR repository_id > $2 OR repository_id = $2 AND (use_time < $3 OR use_time = $3 AND id > $4))
		ORDER BY repository_id, use_time DESC, id LIMIT $5`, repositoryID, afterRepository, afterUse, afterID, size+1)
	if err != nil {
		return nil, err
	}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last *stored) []any { return []any{last.repositoryID, sqldb.Micros(last.used), last.id} })
	for _, one := range found {
		answer.Caches = append(answer.Caches, &schedulerv1.Cache{
			Repository: one.repository, Key: one.name, Scope: one.scope.name, Size: one.size, Files: one.files, BuildId: one.buildID,
			CreateTime: timestamppb.New(one.created), UseTime: timestamppb.New(one.used),
		})
	}
	return answer, nil
}

// DeleteCaches removes caches.
func (s *Service) DeleteCaches(ctx context.Context, req *schedulerv1.DeleteCachesRequest) (*schedulerv1.DeleteCachesResponse, error) {
	repositoryID, err := s.repositoryID(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	answer := &schedulerv1.DeleteCachesResponse{}
	for {
		found, err := s.all(ctx, `kind = 1 AND repository_id = $1 AND ($2 = '' OR substr(name, 1, length($2)) = $2) AND ($3 = '' OR scope = $3) LIMIT $4`,
			repositoryID, req.GetKeyPrefix(), req.GetScope(), sweepBatch)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			break
		}
		if answer.GetCount() == 0 { // they go in batches, and are asked for once
			if err := s.noteDelete(ctx, found[0], req); err != nil {
				return nil, err
			}
		}
		if err := s.removeAll(ctx, found); err != nil {
			return nil, err
		}
		answer.Count += int32(len(found)) //nolint:gosec // see sweepBatch
	}
	if answer.GetCount() == 0 {
		return nil, fault.Newf(fault.NotFound, "%s has no such cache: see forge caches list --repo %s", req.GetRepository(), req.GetRepository())
	}
	return answer, nil
}

// noteDelete writes into the audit log that caches are deleted, of which one is given.
func (s *Service) noteDelete(ctx context.Context, one *stored, req *schedulerv1.DeleteCachesRequest) error {
	return s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		return audit.Add(ctx, t, one.repositoryID, &schedulerv1.AuditEntry{
			Action: schedulerv1.AuditEntry_ACTION_DELETE_CACHES, Repository: one.repository, Subject: req.GetKeyPrefix(), Detail: req.GetScope(),
		})
	})
}

// repositoryID is the repository of a name: as GitHub has it or, where that knows
// none any more, as the caches have; 0 for none.
func (s *Service) repositoryID(ctx context.Context, repository string) (int64, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return 0, err
	}
	answer, err := s.repositories.GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: owner, Name: name})
	if err == nil {
		return answer.GetRepository().GetId(), nil
	}
	one, storeErr := s.one(ctx, `lower(repository) = $1 ORDER BY create_time DESC LIMIT 1`, strings.ToLower(repository))
	if storeErr != nil || one == nil {
		if fault.Is(err, fault.NotFound) {
			return 0, storeErr
		}
		return 0, err
	}
	return one.repositoryID, nil
}
