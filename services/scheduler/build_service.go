package scheduler

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/audit"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// cancelMessage is what fits a commit status.
const cancelMessage = 140

// ListBuilds lists builds, newest first.
func (s *Service) ListBuilds(ctx context.Context, req *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	for name, asked := range map[string]bool{
		"pull_request": req.GetPullRequest() != 0, "branch": req.GetBranch() != "", "base_ref": req.GetBaseRef() != "", "job": req.GetJob() != "",
		"environment": req.GetEnvironment() != "",
	} {
		if asked && req.GetRepository() == "" {
			return nil, fault.Newf(fault.Invalid, "%s needs the repository, as owner/name", name)
		}
	}
	if req.GetEnvironment() != "" {
		if err := trigger.CheckEnvironment(req.GetEnvironment()); err != nil {
			return nil, err
		}
	}
	var before int64 // the number of the last build on the page before
	if err := rpc.ParsePageToken(req.GetPageToken(), &before); err != nil {
		return nil, err
	}
	if req, err = s.boundList(ctx, req); err != nil {
		return nil, err
	}
	found, err := s.store.ListBuilds(ctx, req, before, size+1)
	if err != nil {
		return nil, fmt.Errorf("list builds: %w", err)
	}
	answer := &schedulerv1.ListBuildsResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last *store.Build) []any { return []any{last.Number} })
	bound := rpc.Caller(ctx).Bound
	for _, b := range found {
		if bound.Name == "" || bound.RepositoryID == b.GetRepository().GetId() { // a name may have been another's before
			answer.Builds = append(answer.Builds, b.Build)
		}
	}
	if err := store.ForPlaces(ctx, s.store, s.deps.Capacity, answer.GetBuilds()...); err != nil {
		return nil, fmt.Errorf("free places: %w", err)
	}
	return answer, nil
}

// ListRepositories lists those in which something was built.
func (s *Service) ListRepositories(ctx context.Context, req *schedulerv1.ListRepositoriesRequest) (*schedulerv1.ListRepositoriesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after string
	if err := rpc.ParsePageToken(req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	found, err := s.store.NewestBuilds(ctx, after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	answer := &schedulerv1.ListRepositoriesResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last *store.Build) []any { return []any{last.RepositoryKey()} })
	for _, b := range found {
		answer.Repositories = append(answer.Repositories, &schedulerv1.BuiltRepository{Repository: b.GetRepository(), NewestBuild: b.Build})
	}
	return answer, nil
}

// GetBuild shows one build.
func (s *Service) GetBuild(ctx context.Context, req *schedulerv1.GetBuildRequest) (*schedulerv1.GetBuildResponse, error) {
	b, err := s.readWhole(ctx, req.GetBuildId())
	if err != nil {
		return nil, err
	}
	return &schedulerv1.GetBuildResponse{Build: b}, nil
}

// WatchBuild sends a build at each change until it has ended.
func (s *Service) WatchBuild(req *schedulerv1.WatchBuildRequest, stream schedulerv1.BuildService_WatchBuildServer) error {
	ctx := stream.Context()
	changed, leave := s.store.Notifier.Subscribe(store.BuildTopic(req.GetBuildId()))
	defer leave()
	anyway := store.LookAnyway()
	defer anyway.Stop()
	var last *schedulerv1.Build
	for {
		b, err := s.readWhole(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		if !proto.Equal(b, last) {
			if err := stream.Send(&schedulerv1.WatchBuildResponse{Build: b}); err != nil {
				return err
			}
			last = b
		}
		if store.Ended(b.GetState()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-changed:
		case <-anyway.C:
		}
	}
}

// checkMessage is for what people write for others, who read it on one line.
func checkMessage(message string, most int) error {
	switch {
	case utf8.RuneCountInString(message) > most:
		return fault.Newf(fault.Invalid, "message: at most %d characters", most)
	case strings.ContainsFunc(message, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }):
		return fault.New(fault.Invalid, "message: one line, without control characters")
	}
	return nil
}

// CancelBuild asks a build to stop.
func (s *Service) CancelBuild(ctx context.Context, req *schedulerv1.CancelBuildRequest) (*schedulerv1.CancelBuildResponse, error) {
	message := req.GetMessage()
	if err := checkMessage(message, cancelMessage); err != nil {
		return nil, err
	}
	if message == "" {
		message = "cancelled by " + askedBy(ctx)
	}
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		b, err := t.Build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		if store.Ended(b.GetState()) {
			return fault.Newf(fault.Conflict, "build %s has ended already", req.GetBuildId())
		}
		if err := audit.Add(ctx, t, b.GetRepository().GetId(), &schedulerv1.AuditEntry{
			Action: schedulerv1.AuditEntry_ACTION_CANCEL, Repository: wording.FullName(b.GetRepository()), BuildId: b.GetId(), Environment: b.GetEnvironment(), Detail: req.GetMessage(),
		}); err != nil {
			return err
		}
		return s.attempts.Cancel(ctx, t, b, schedulerv1.Build_REASON_CANCEL_ASKED, message)
	})
	if err != nil {
		return nil, err
	}
	b, err := s.readWhole(ctx, req.GetBuildId())
	return &schedulerv1.CancelBuildResponse{Build: b}, err
}

// ExpediteBuild moves a build to the front of the queue.
func (s *Service) ExpediteBuild(ctx context.Context, req *schedulerv1.ExpediteBuildRequest) (*schedulerv1.ExpediteBuildResponse, error) {
	by := askedBy(ctx)
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		if err := store.Expedite(ctx, t, req.GetBuildId(), by); err != nil {
			return err
		}
		b, err := t.Build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		return audit.Add(ctx, t, b.GetRepository().GetId(), &schedulerv1.AuditEntry{
			Action: schedulerv1.AuditEntry_ACTION_EXPEDITE, Repository: wording.FullName(b.GetRepository()), BuildId: b.GetId(),
		})
	})
	if err != nil {
		return nil, err
	}
	s.deps.Log.InfoContext(ctx, "build moved to the front of the queue", "build", req.GetBuildId(), "by", by)
	b, err := s.readWhole(ctx, req.GetBuildId())
	return &schedulerv1.ExpediteBuildResponse{Build: b}, err
}

// readWhole is a build as its page shows it: where it is queued, with its place there.
func (s *Service) readWhole(ctx context.Context, id string) (*schedulerv1.Build, error) {
	b, err := s.store.ReadWhole(ctx, id)
	if err == nil {
		b.Line, err = store.Line(ctx, s.store, b, s.deps.Capacity)
	}
	if err == nil {
		err = store.ForPlaces(ctx, s.store, s.deps.Capacity, b)
	}
	if at := b.GetLine().GetEstimateTime(); at != nil {
		s.attempts.Estimates.Told(id, at.AsTime())
	}
	if b.GetReason() == schedulerv1.Build_REASON_UNSPECIFIED && (b.GetLine() != nil || b.GetState() == schedulerv1.Build_STATE_RUNNING) {
		b.Reason = store.WaitsFor(b)
	}
	return b, err
}
