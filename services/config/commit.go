package config

import (
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// CompareCommits implements configv1.CommitServiceServer.
func (s *Service) CompareCommits(ctx context.Context, req *configv1.CompareCommitsRequest) (*configv1.CompareCommitsResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	for _, sha := range []string{req.GetBase(), req.GetHead()} {
		if err := checkSHA(sha); err != nil {
			return nil, err
		}
	}
	if req.GetBase() == req.GetHead() {
		return &configv1.CompareCommitsResponse{Relation: configv1.CompareCommitsResponse_RELATION_IDENTICAL}, nil
	}
	noun := fmt.Sprintf("compare %s with %s in %s", req.GetHead(), req.GetBase(), g.fullName())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, err)
	}
	// GitHub lists the changed files with the first page alone; only the relation is wanted.
	compared, _, err := client.Repositories.CompareCommits(ctx, g.owner, g.name, req.GetBase(), req.GetHead(), &github.ListOptions{Page: 2, PerPage: 1})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", noun, failure(err))
	}
	relation, known := map[string]configv1.CompareCommitsResponse_Relation{
		"identical": configv1.CompareCommitsResponse_RELATION_IDENTICAL,
		"ahead":     configv1.CompareCommitsResponse_RELATION_AHEAD,
		"behind":    configv1.CompareCommitsResponse_RELATION_BEHIND,
		"diverged":  configv1.CompareCommitsResponse_RELATION_DIVERGED,
	}[compared.GetStatus()]
	if !known {
		return nil, fault.Newf(fault.Unavailable, "%s: GitHub answers %q", noun, compared.GetStatus())
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, nil
}
