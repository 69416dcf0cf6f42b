package config

import (
	"context"
	"fmt"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// collaborators answers what people may do.
type collaborators struct {
	configv1.UnimplementedCollaboratorServiceServer
	*Service
}

// GetPermission implements configv1.CollaboratorServiceServer.
func (s collaborators) GetPermission(ctx context.Context, req *configv1.GetPermissionRequest) (*configv1.GetPermissionResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	if req.GetLogin() == "" {
		return nil, fault.New(fault.Invalid, "login: whose permission?")
	}
	recent := s.recent(req.GetEventTime())
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("permission of %s: %w", req.GetLogin(), notYet(err, recent))
	}
	level, _, err := client.Repositories.GetPermissionLevel(ctx, g.owner, g.name, req.GetLogin())
	if err != nil {
		if err = notYet(githubFault(err), recent); fault.Is(err, fault.NotFound) {
			return &configv1.GetPermissionResponse{Permission: configv1.GetPermissionResponse_PERMISSION_NONE}, nil
		}
		return nil, fmt.Errorf("permission of %s: %w", req.GetLogin(), err)
	}
	// GitHub answers with the permission that a role such as maintain includes.
	permission, known := map[string]configv1.GetPermissionResponse_Permission{
		"none":  configv1.GetPermissionResponse_PERMISSION_NONE,
		"read":  configv1.GetPermissionResponse_PERMISSION_READ,
		"write": configv1.GetPermissionResponse_PERMISSION_WRITE,
		"admin": configv1.GetPermissionResponse_PERMISSION_ADMIN,
	}[level.GetPermission()]
	if !known {
		return nil, fault.Newf(fault.Unavailable, "permission of %s: GitHub answers %q", req.GetLogin(), level.GetPermission())
	}
	return &configv1.GetPermissionResponse{Permission: permission}, nil
}
