package config

import (
	"context"
	"fmt"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// GetTeamMembership implements configv1.CollaboratorServiceServer. It is asked with a token
// that may read the members of organizations, and nothing of a repository but that it is
// there.
func (s collaborators) GetTeamMembership(ctx context.Context, req *configv1.GetTeamMembershipRequest) (*configv1.GetTeamMembershipResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), teamReader)
	if err != nil {
		return nil, err
	}
	org, team, ok := strings.Cut(req.GetTeam(), "/")
	if !ok || org == "" || team == "" || req.GetLogin() == "" {
		return nil, fault.New(fault.Invalid, "name a team as org/team, and a login")
	}
	if !strings.EqualFold(org, g.owner) { // an installation knows its own organization alone
		return &configv1.GetTeamMembershipResponse{}, nil
	}
	client, err := s.clients.client(ctx, g)
	if err == nil {
		membership, _, refused := client.Teams.GetTeamMembershipBySlug(ctx, org, team, req.GetLogin())
		if refused == nil {
			return &configv1.GetTeamMembershipResponse{Member: membership.GetState() == "active"}, nil
		}
		if err = githubFault(refused); fault.Is(err, fault.NotFound) {
			return &configv1.GetTeamMembershipResponse{}, nil
		}
	}
	if fault.Is(err, fault.Denied) {
		return nil, fault.Newf(fault.Conflict, "the App may not read the teams of %s: grant it the organization permission Members: read on its settings page, then an owner accepts that in the installation", org)
	}
	return nil, fmt.Errorf("whether %s is in team %s: %w", req.GetLogin(), req.GetTeam(), err)
}
