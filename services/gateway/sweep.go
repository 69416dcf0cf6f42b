package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// sweepKind is how far pull requests are swept: that costs a call for each
// repository, and one for each pull request that changed, or that has a preview.
type sweepKind int

const (
	neverSweep sweepKind = iota
	// Some webhooks are lost without a record even while Forge is up: GitHub's
	// incidents tell so. Once an hour, with a small share of the calls.
	routineSweep
	// By hand, or where GitHub's list of deliveries does not reach back to when all
	// was known.
	wholeSweep
)

const sweepEvery = time.Hour

// sweepAll looks for all that no delivery told of, and returns what is new. Previews come
// last: that they cannot be asked about holds up nothing else.
func (r *recovery) sweepAll(ctx context.Context, kind sweepKind, since time.Time) ([]string, error) {
	swept, err := r.sweep(ctx, kind, since)
	if err != nil {
		return swept, err
	}
	pushes, err := r.sweepRefs(ctx, kind)
	swept = append(swept, pushes...)
	if err != nil {
		return swept, err
	}
	closed, err := r.sweepPreviews(ctx, kind)
	return append(swept, closed...), err
}

// sweep stores what changed of pull requests since then as deliveries, and
// returns those that are new: no delivery tells of that state yet.
func (r *recovery) sweep(ctx context.Context, kind sweepKind, since time.Time) ([]string, error) {
	stream, err := r.pulls.ListChangedPullRequests(ctx, &configv1.ListChangedPullRequestsRequest{
		Since: timestamppb.New(since), Frugal: kind == routineSweep,
	})
	if err != nil {
		return nil, fmt.Errorf("sweep pull requests: %w", err)
	}
	return keepAll(stream, "pull requests", func(found *configv1.ListChangedPullRequestsResponse) ([]string, error) {
		return r.keepPull(ctx, pullState(found.GetRepositoryId(), found.GetNumber(), found.GetSha()), found.GetPayload())
	})
}

// keepAll has all that a sweep finds stored, and returns the ids of what is new.
func keepAll[R any](stream grpc.ServerStreamingClient[R], what string, keep func(found *R) ([]string, error)) (swept []string, err error) {
	for {
		found, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return swept, nil
		}
		if err != nil {
			return nil, fmt.Errorf("sweep %s: %w", what, err)
		}
		ids, err := keep(found)
		if err != nil {
			return nil, err
		}
		swept = append(swept, ids...)
	}
}

// keepPull stores what tells of a state of a pull request, unless that is known, and
// returns its id.
func (r *recovery) keepPull(ctx context.Context, state string, payload []byte) ([]string, error) {
	id, isNew, err := r.isNew(ctx, state)
	if !isNew || err != nil {
		return nil, err
	}
	return []string{id}, r.put(ctx, id, "pull_request", payload)
}

// isNew reports whether no delivery tells of a state, nor was it swept, and what a
// delivery that does is called.
func (r *recovery) isNew(ctx context.Context, state string) (id string, isNew bool, err error) {
	id = "swept-" + state
	if told, err := r.store.hasPullState(ctx, state); told || err != nil {
		return "", false, err
	}
	here, err := r.store.known(ctx, []string{id})
	return id, err == nil && len(here) == 0, err
}

// put stores what was swept as the delivery of an event.
func (r *recovery) put(ctx context.Context, id, event string, payload []byte) error {
	return r.inbox.put(ctx, &arrival{
		delivery: delivery{
			guid: id, event: event, size: int64(len(payload)), received: r.deps.Now(),
			headers:     headers(metadata.Pairs("x-github-event", event), "application/json"),
			traceparent: telemetry.Traceparent(ctx),
		},
		payload: s2.EncodeSnappy(nil, payload),
	})
}

// pullState names a state of a pull request: its head's sha, once merged the merge
// commit's, and once closed without a merge the time of that.
func pullState(repository int64, number int32, sha string) string {
	return fmt.Sprintf("%d-%d-%s", repository, number, sha)
}

// pullStateOf is the pullState, or the pushState, that an event tells its receivers
// of; "" for events that tell of none.
func pullStateOf(e *eventv1.Event) string {
	if push := e.GetPush(); push != nil {
		return pushState(e.GetRepository().GetId(), push.GetRef(), cmp.Or(push.GetHeadSha(), push.GetAfter()))
	}
	pull := e.GetPullRequest().GetPullRequest()
	if pull == nil {
		return ""
	}
	sha := pull.GetHead().GetSha()
	switch e.GetAction() {
	case "opened", "reopened", "synchronize":
	case "closed":
		if sha = pull.GetMergeCommitSha(); pull.GetMerged() {
			break
		}
		if pull.GetCloseTime() == nil {
			return ""
		}
		sha = fmt.Sprintf("closed-%d", pull.GetCloseTime().GetSeconds())
	default:
		return ""
	}
	return pullState(e.GetRepository().GetId(), pull.GetNumber(), sha)
}
