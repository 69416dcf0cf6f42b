package attempt

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// ofOnePullRequest is the part of all containers that are kept which may be of one pull
// request: the rest is for others.
const ofOnePullRequest = 2

// keep decides whether the container of an attempt that ends is kept, which holds up
// nobody: not its place, nor its environment, nor its concurrency group.
func keep(ctx context.Context, s *Service, t *store.Tx, b *store.Build, a *store.Attempt, o outcome) error {
	long := s.Limits.Keep
	if asked := b.ConfigJob().GetKeep(); asked != nil {
		long = asked.AsDuration()
	}
	long = min(long, s.Limits.MaxKeep)
	if long <= 0 || o.state != schedulerv1.Build_STATE_FAILED && o.state != schedulerv1.Build_STATE_TIMED_OUT {
		return nil
	}
	kept, alike, err := store.CountKept(ctx, t, b)
	if err != nil {
		return err
	}
	switch {
	case b.GetFork() && b.GetApprovedBy() == "":
		b.NotKept = "it is of a fork's commit that nobody approved"
	case len(b.ConfigJob().GetPorts()) > 0:
		b.NotKept = "it has ports of the host, which the next build may need"
	case s.trust.covers(b) && reachesHost(b.ConfigJob()):
		b.NotKept = "it may do what only merged commits may, which a shell in it would lend to whoever may write"
	case kept >= s.Capacity:
		b.NotKept = fmt.Sprintf("as many containers are kept already as builds run at once: %d", kept)
	case alike >= max(1, s.Capacity/ofOnePullRequest):
		b.NotKept = fmt.Sprintf("of its pull request as many containers are kept already as of one may be: %d", alike)
	case !a.Keeps:
		b.NotKept = "the build's forgexec is too old for that: replace it by the one that came with Forge"
	default:
		b.KeptUntilTime = timestamppb.New(t.Now.Add(long))
	}
	return nil
}

// reachesHost reports whether a job, or a service beside it, may do what reaches the host.
func reachesHost(job *configv1.Job) bool {
	for _, service := range job.GetServices() {
		if service.GetPrivileged() {
			return true
		}
	}
	return job.GetPrivileged() || len(job.GetVolumes()) > 0
}

// keptOf is the attempt of a runner whose container is kept.
func (r runnerService) keptOf(ctx context.Context, runnerID string) (*store.Attempt, error) {
	a, err := r.attemptBy(ctx, runnerID)
	if err == nil && !a.IsKept(r.service.now()) {
		return nil, attemptOver(a)
	}
	return a, err
}

// Keep tells a runner which shells people ask for.
func (r runnerService) Keep(req *schedulerv1.KeepRequest, stream schedulerv1.RunnerService_KeepServer) error {
	ctx, s := stream.Context(), r.service
	tick := time.NewTicker(s.Runners.Heartbeat)
	defer tick.Stop()
	var asked <-chan struct{}
	for {
		a, err := r.keptOf(ctx, req.GetRunnerId())
		if err != nil {
			return err
		}
		if asked == nil {
			var leave func()
			asked, leave = s.store.Notifier.Subscribe(store.RunnerTopic(a.BuildID))
			defer leave()
		}
		ids, err := s.shells.Waiting(ctx, a.BuildID, a.Number)
		if err != nil {
			return err
		}
		if err := stream.Send(&schedulerv1.KeepResponse{Left: durationpb.New(a.Kept.Sub(s.now())), ShellIds: ids}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-tick.C:
		case <-asked:
		}
	}
}

// Shell is one shell in a kept container, as its runner sees it.
func (r runnerService) Shell(stream schedulerv1.RunnerService_ShellServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	a, err := r.keptOf(stream.Context(), first.GetBegin().GetRunnerId())
	if err != nil {
		return err
	}
	return r.service.shells.Attend(a, first.GetBegin().GetShellId(), stream)
}
