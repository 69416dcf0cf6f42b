package token

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	most   = 50          // of a repository
	usedTo = time.Minute // how exactly it is known when one was used
	size   = 32          // random bytes
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$`)

// Service keeps the tokens, and serves RepositoryTokenService.
type Service struct {
	schedulerv1.UnimplementedRepositoryTokenServiceServer
	store        *store.Store
	repositories configv1.RepositoryServiceClient
	random       io.Reader
	log          *slog.Logger
}

// Deps is what tokens need.
type Deps struct {
	Store *store.Store
	// Config tells which repository a name is.
	Config grpc.ClientConnInterface
	Random io.Reader
	Log    *slog.Logger
}

// New returns what keeps tokens.
func New(d Deps) *Service {
	return &Service{store: d.Store, repositories: configv1.NewRepositoryServiceClient(d.Config), random: d.Random, log: d.Log}
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Bound is whose token a secret is; fault.Unauthenticated where it is none, or none any
// more. The answer never depends on more than one row, found by its hash.
func (s *Service) Bound(ctx context.Context, secret string) (rpc.Bound, error) {
	k, err := s.find(ctx, hashOf(secret))
	switch {
	case err != nil:
		return rpc.Bound{}, fmt.Errorf("token of a repository: %w", err)
	case k == nil:
		return rpc.Bound{}, fault.New(fault.Unauthenticated, "there is no such token: it was deleted, or never made")
	case !k.expires.IsZero() && !s.store.Now().Before(k.expires):
		return rpc.Bound{}, fault.Newf(fault.Unauthenticated, "the token %s of %s has expired: make another by forge tokens create", k.name, k.repository)
	}
	if err := s.use(ctx, k); err != nil {
		s.log.WarnContext(ctx, "use of a token not noted", "repository", k.repository, "token", k.name, "error", err)
	}
	return rpc.Bound{RepositoryID: k.repositoryID, Repository: k.repository, Name: k.name}, nil
}

// Covers is fault.Denied where a name is not that of the repository that a token is
// bound to. Of others it does not say whether they are there.
func (s *Service) Covers(ctx context.Context, bound rpc.Bound, repository string) error {
	found, err := s.repository(ctx, repository)
	switch {
	case fault.Is(err, fault.NotFound), err == nil && found.GetId() != bound.RepositoryID:
		return fault.Newf(fault.Denied, "the token %s is of %s, and opens no other repository", bound.Name, bound.Repository)
	default:
		return err
	}
}

func (s *Service) repository(ctx context.Context, repository string) (*eventv1.Repository, error) {
	owner, name, err := store.SplitRepository(repository)
	if err != nil {
		return nil, err
	}
	answer, err := s.repositories.GetRepository(ctx, &configv1.GetRepositoryRequest{Owner: owner, Name: name})
	return answer.GetRepository(), err
}

// CreateRepositoryToken makes a token.
func (s *Service) CreateRepositoryToken(ctx context.Context, req *schedulerv1.CreateRepositoryTokenRequest) (*schedulerv1.CreateRepositoryTokenResponse, error) {
	if !namePattern.MatchString(req.GetName()) {
		return nil, fault.New(fault.Invalid, "name: letters, digits, and . _ -, a letter or digit first, 60 at most")
	}
	now := s.store.Now()
	k := kept{name: req.GetName(), created: now}
	if req.GetExpireTime() != nil {
		if k.expires = req.GetExpireTime().AsTime(); req.GetExpireTime().CheckValid() != nil || !k.expires.After(now) {
			return nil, fault.New(fault.Invalid, "expire_time: expected a time that is still to come")
		}
	}
	repository, err := s.repository(ctx, req.GetRepository())
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Newf(fault.NotFound, "GitHub shows Forge no repository %s: is it the right name, and is the App installed there?", req.GetRepository())
	}
	if err != nil {
		return nil, err
	}
	k.repositoryID, k.repository = repository.GetId(), wording.FullName(repository)
	secret, err := s.fresh()
	if err != nil {
		return nil, err
	}
	if err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if err := add(ctx, t, k, hashOf(secret)); err != nil {
			return err
		}
		return audit.Add(ctx, t, k.repositoryID, &schedulerv1.AuditEntry{
			Action: schedulerv1.AuditEntry_ACTION_CREATE_TOKEN, Repository: k.repository, Subject: "repository token " + k.name,
		})
	}); err != nil {
		return nil, fmt.Errorf("token %s of %s: %w", k.name, k.repository, err)
	}
	s.log.InfoContext(ctx, "a token was made", "repository", k.repository, "token", k.name)
	return &schedulerv1.CreateRepositoryTokenResponse{Token: k.shown(), Secret: secret}, nil
}

func (s *Service) fresh() (string, error) {
	bits := make([]byte, size)
	if _, err := io.ReadFull(s.random, bits); err != nil {
		return "", fmt.Errorf("random bits for a token: %w", err)
	}
	return rpc.BoundPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bits)), nil
}

func (k kept) shown() *schedulerv1.RepositoryToken {
	return &schedulerv1.RepositoryToken{
		Repository: k.repository, Name: k.name, CreateTime: timestamppb.New(k.created), UseTime: moment(k.used), ExpireTime: moment(k.expires),
	}
}

// moment is unset for never.
func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// ListRepositoryTokens lists tokens.
func (s *Service) ListRepositoryTokens(ctx context.Context, req *schedulerv1.ListRepositoryTokensRequest) (*schedulerv1.ListRepositoryTokensResponse, error) {
	limit, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var afterID int64
	var afterName string
	if err := rpc.ParsePageToken(req.GetPageToken(), &afterID, &afterName); err != nil {
		return nil, err
	}
	found, err := s.list(ctx, req.GetRepository(), afterID, afterName, limit+1)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	answer := &schedulerv1.ListRepositoryTokensResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, limit, func(last kept) []any { return []any{last.repositoryID, last.name} })
	for _, k := range found {
		answer.Tokens = append(answer.Tokens, k.shown())
	}
	return answer, nil
}

// DeleteRepositoryToken ends a token.
func (s *Service) DeleteRepositoryToken(ctx context.Context, req *schedulerv1.DeleteRepositoryTokenRequest) (*schedulerv1.DeleteRepositoryTokenResponse, error) {
	if _, _, err := store.SplitRepository(req.GetRepository()); err != nil {
		return nil, err
	}
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		ids, err := remove(ctx, t, req.GetRepository(), req.GetName())
		if err == nil && len(ids) == 0 {
			return fault.Newf(fault.NotFound, "%s has no token %s: forge tokens list shows them, by the name that the repository had when each was made", req.GetRepository(), req.GetName())
		}
		for _, id := range ids { // a name may have been another's
			err = errors.Join(err, audit.Add(ctx, t, id, &schedulerv1.AuditEntry{
				Action: schedulerv1.AuditEntry_ACTION_DELETE_TOKEN, Repository: req.GetRepository(), Subject: "repository token " + req.GetName(),
			}))
		}
		return err
	})
	if err == nil {
		s.log.InfoContext(ctx, "a token was deleted", "repository", req.GetRepository(), "token", req.GetName())
	}
	return &schedulerv1.DeleteRepositoryTokenResponse{}, err
}
