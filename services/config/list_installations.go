package config

import (
	"context"
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// ListInstallations implements configv1.InstallationServiceServer.
func (s *Service) ListInstallations(_ context.Context, req *configv1.ListInstallationsRequest) (*configv1.ListInstallationsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after string
	if err := rpc.ParsePageToken(req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	rest := s.byAccount()
	if after != "" {
		rest = slices.DeleteFunc(rest, func(one *configv1.Installation) bool { return listKey(one) <= after })
	}
	answer := &configv1.ListInstallationsResponse{}
	answer.Installations, answer.NextPageToken = rpc.CutPage(rest, size, func(last *configv1.Installation) []any { return []any{listKey(last)} })
	return answer, nil
}

// GetInstallation implements configv1.InstallationServiceServer.
func (s *Service) GetInstallation(ctx context.Context, req *configv1.GetInstallationRequest) (*configv1.GetInstallationResponse, error) {
	found, err := s.installations.get(ctx, req.GetInstallationId())
	if err != nil {
		return nil, err
	}
	return &configv1.GetInstallationResponse{Installation: found}, nil
}

// RefreshInstallations implements configv1.InstallationServiceServer.
func (s *Service) RefreshInstallations(ctx context.Context, _ *configv1.RefreshInstallationsRequest) (*configv1.RefreshInstallationsResponse, error) {
	if _, err := s.installations.refresh(ctx); err != nil {
		return nil, err
	}
	return &configv1.RefreshInstallationsResponse{Installations: s.byAccount()}, nil
}

func (s *Service) byAccount() []*configv1.Installation {
	all := s.installations.all()
	slices.SortFunc(all, func(a, b *configv1.Installation) int { return strings.Compare(listKey(a), listKey(b)) })
	return all
}

// listKey orders installations by account. A login holds no slash.
func listKey(one *configv1.Installation) string {
	return fmt.Sprintf("%s/%020d", strings.ToLower(one.GetAccount()), one.GetId())
}
