package scheduler

import (
	"cmp"
	"context"
	"unicode/utf8"

	"google.golang.org/grpc/peer"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// maxBy is how long the name of who asks may be, in characters.
const maxBy = 100

// ReleaseEnvironment takes an environment from a deploy that cannot let go of it.
func (s *Service) ReleaseEnvironment(ctx context.Context, req *schedulerv1.ReleaseEnvironmentRequest) (*schedulerv1.ReleaseEnvironmentResponse, error) {
	if utf8.RuneCountInString(req.GetBy()) > maxBy {
		return nil, fault.Newf(fault.Invalid, "by: at most %d characters", maxBy)
	}
	var from, because string
	entry := &schedulerv1.AuditEntry{Action: schedulerv1.AuditEntry_ACTION_RELEASE}
	shown, err := s.changeEnvironment(ctx, req.GetRepository(), req.GetEnvironment(), entry, func(ctx context.Context, t *store.Tx, e *store.Environment) error {
		switch {
		case e.Holder == "":
			return fault.Newf(fault.Conflict, "no build holds %s of %s", e.Name, e.Repository)
		case e.HeldBecause == "":
			return fault.Newf(fault.Conflict, "build %s holds %s and lets go of it once it has ended and its container is removed: cancel it if it is to end", e.Holder, e.Name)
		case !req.GetForce():
			return fault.Newf(fault.Conflict, "%s is held by build %s: %s", e.Name, e.Holder, e.HeldBecause)
		}
		from, because = e.Holder, e.HeldBecause
		entry.BuildId, entry.Detail = from, because
		if req.GetBy() != "" {
			entry.Detail += "; by " + req.GetBy() + ", as the caller says"
		}
		return s.environments.Release(ctx, t, e)
	})
	if err != nil {
		return nil, err
	}
	address := ""
	if caller, ok := peer.FromContext(ctx); ok && caller.Addr != nil {
		address = caller.Addr.String()
	}
	s.deps.Log.WarnContext(ctx, "environment released by force", "repository", shown.GetRepository(), "environment", shown.GetName(),
		"build", from, "held", because, "by", cmp.Or(rpc.Caller(ctx).Person, req.GetBy(), "nobody who says"), "from", address)
	return &schedulerv1.ReleaseEnvironmentResponse{Environment: shown}, nil
}
