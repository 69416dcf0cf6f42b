package attempt

import (
	"context"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// GetContent sends a runner a cache or an artifact.
func (r runnerService) GetContent(request *schedulerv1.GetContentRequest, stream schedulerv1.RunnerService_GetContentServer) error {
	b, err := r.heldBy(stream.Context(), request.GetRunnerId())
	if err != nil {
		return err
	}
	return r.service.contents.Get(telemetry.WithTraceparent(stream.Context(), b.Traceparent), b, request, stream.Send)
}

// PutContent keeps what a runner brings.
func (r runnerService) PutContent(stream schedulerv1.RunnerService_PutContentServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	if first.GetBegin() == nil {
		return fault.New(fault.Invalid, "the first message is a Begin")
	}
	b, err := r.heldBy(stream.Context(), first.GetBegin().GetRunnerId())
	if err != nil {
		return err
	}
	return r.service.contents.Put(telemetry.WithTraceparent(stream.Context(), b.Traceparent), b, first.GetBegin(), stream)
}

// heldBy is the build whose attempt the call's token is of, which must be this
// runner's and not have ended.
func (r runnerService) heldBy(ctx context.Context, runnerID string) (*store.Build, error) {
	a, err := r.attemptBy(ctx, runnerID)
	if err != nil {
		return nil, err
	}
	if a.Ended {
		return nil, attemptOver(a)
	}
	b, err := store.ReadBuild(ctx, r.service.store.DB.Read(), a.BuildID, "")
	if err != nil {
		return nil, err
	}
	if b.GetAttempt() != a.Number {
		return nil, attemptOver(a)
	}
	return b, nil
}

// attemptBy is the attempt that the call's token is of, which must be this runner's.
func (r runnerService) attemptBy(ctx context.Context, runnerID string) (*store.Attempt, error) {
	buildID, number, err := r.attemptOf(ctx)
	if err != nil {
		return nil, err
	}
	a, err := store.ReadAttempt(ctx, r.service.store.DB.Read(), buildID, number, "")
	if err != nil {
		return nil, err
	}
	if runnerID == "" || a.RunnerID != runnerID {
		return nil, attemptOver(a)
	}
	return a, nil
}
