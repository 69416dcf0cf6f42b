package config

import (
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// GetRepository implements configv1.RepositoryServiceServer.
func (s *Service) GetRepository(ctx context.Context, req *configv1.GetRepositoryRequest) (*configv1.GetRepositoryResponse, error) {
	g, err := grantFor(&eventv1.Repository{Owner: req.GetOwner(), Name: req.GetName()}, 0, roomConfig)
	if err != nil {
		return nil, err
	}
	_, found, err := s.repository(ctx, g)
	return &configv1.GetRepositoryResponse{Repository: found}, err
}

// repository reads a repository from GitHub, and returns a client for further
// calls about it.
func (s *Service) repository(ctx context.Context, g grant) (*github.Client, *eventv1.Repository, error) {
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, nil, fmt.Errorf("repository %s: %w", g.fullName(), err)
	}
	repo, _, err := client.Repositories.Get(ctx, g.owner, g.name)
	if err != nil {
		return nil, nil, fmt.Errorf("repository %s: %w", g.fullName(), githubFault(err))
	}
	return client, &eventv1.Repository{
		Id: repo.GetID(), Owner: repo.GetOwner().GetLogin(), Name: repo.GetName(), DefaultBranch: repo.GetDefaultBranch(),
		Private: repo.GetPrivate(), Fork: repo.GetFork(), Archived: repo.GetArchived(),
	}, nil
}
