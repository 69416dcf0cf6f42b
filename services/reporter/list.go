package reporter

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ListTargets lists targets, the latest changed first.
func (s *Service) ListTargets(ctx context.Context, req *reporterv1.ListTargetsRequest) (*reporterv1.ListTargetsResponse, error) {
	var after cursor
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.updated, &after.id); err != nil {
		return nil, err
	}
	owner, name, whole := strings.Cut(req.GetRepository(), "/")
	if req.GetRepository() != "" && (!whole || owner == "" || name == "") {
		return nil, fault.New(fault.Invalid, "repository is written owner/name")
	}
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	// One more than asked for tells whether there is a next page.
	found, err := s.store.list(ctx, page{
		after: after, owner: owner, name: name, sha: req.GetSha(), states: req.GetStates(), limit: size + 1,
	})
	if err != nil {
		return nil, err
	}
	resp := &reporterv1.ListTargetsResponse{}
	found, resp.NextPageToken = rpc.CutPage(found, size, func(last target) []any { return []any{sqldb.Micros(last.updated), last.id} })
	for _, t := range found {
		resp.Targets = append(resp.Targets, t.proto())
	}
	return resp, nil
}

// GetTarget shows one target.
func (s *Service) GetTarget(ctx context.Context, req *reporterv1.GetTargetRequest) (*reporterv1.GetTargetResponse, error) {
	t, err := s.store.get(ctx, req.GetTargetId())
	if err != nil {
		return nil, err
	}
	history, err := s.store.history(ctx, t.id)
	if err != nil {
		return nil, err
	}
	resp := &reporterv1.GetTargetResponse{Target: t.proto()}
	for _, c := range history {
		resp.Calls = append(resp.Calls, &reporterv1.Call{
			Time: timestamp(c.time), Duration: durationpb.New(c.took), Request: c.request, Status: int32(c.status), //nolint:gosec // three digits
			Error: c.err, RequestId: c.requestID, Version: c.version,
		})
	}
	return resp, nil
}

// RetryTarget has a target told at once.
func (s *Service) RetryTarget(ctx context.Context, req *reporterv1.RetryTargetRequest) (*reporterv1.RetryTargetResponse, error) {
	found, err := s.store.get(ctx, req.GetTargetId())
	if err != nil {
		return nil, err
	}
	err = s.store.change(ctx, found.id, found.kind, found.repository.GetId(), func(t *target) {
		if t.state != reporterv1.Target_STATE_TOLD && t.lease.IsZero() {
			t.retryNow(s.deps.Now())
		}
		found = *t
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.RetryTargetResponse{Target: found.proto()}, nil
}

func (t *target) proto() *reporterv1.Target {
	return &reporterv1.Target{
		Id: t.id, Kind: t.kind, Repository: t.repository, InstallationId: t.installationID, Sha: t.sha, Context: t.context,
		State: t.state, Version: t.version, ToldVersion: t.publishedVersion,
		DesiredState: t.desired.state, Description: t.desired.description, TargetUrl: t.desired.url, BuildId: t.buildID,
		Attempts: int32(t.attempts), Error: t.err, NextTryTime: timestamp(t.due), //nolint:gosec // mostTries at most
		TellTime: timestamp(t.publishedAt), UpdateTime: timestamp(t.updated), PullRequest: t.pullRequest,
		GithubId: t.githubID, VerifyTime: timestamp(t.verifiedAt),
	}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// cursor is the last target of a page.
type cursor struct {
	updated int64
	id      string
}
