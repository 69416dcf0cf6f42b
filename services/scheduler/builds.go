package scheduler

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

const (
	defaultPage = 50
	largestPage = 500
	// cancelMessage is what fits a commit status.
	cancelMessage = 140
)

// ListBuilds lists builds, newest first.
func (s *Service) ListBuilds(ctx context.Context, req *schedulerv1.ListBuildsRequest) (*schedulerv1.ListBuildsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetPullRequest() != 0 && req.GetRepository() == "" {
		return nil, fault.New(fault.Invalid, "pull_request needs the repository, as owner/name")
	}
	before, err := parsePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.store.listBuilds(ctx, req, before, size+1)
	if err != nil {
		return nil, fmt.Errorf("list builds: %w", err)
	}
	answer := &schedulerv1.ListBuildsResponse{}
	if len(found) > size {
		found = found[:size]
		answer.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(found[size-1].number, 10)))
	}
	for _, b := range found {
		answer.Builds = append(answer.Builds, b.Build)
	}
	return answer, nil
}

func pageSize(asked int32) (int, error) {
	if asked < 0 {
		return 0, fault.New(fault.Invalid, "page_size: use 0 or more")
	}
	return min(cmp.Or(int(asked), defaultPage), largestPage), nil
}

// parsePageToken is the number of the last build on the page before; 0 for none.
func parsePageToken(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	number, numberErr := strconv.ParseInt(string(text), 10, 64)
	if err != nil || numberErr != nil || number <= 0 {
		return 0, fault.New(fault.Invalid, "page_token is not one of ours")
	}
	return number, nil
}

func (s *store) listBuilds(ctx context.Context, req *schedulerv1.ListBuildsRequest, before int64, limit int) ([]*build, error) {
	var where []string
	var args []any
	arg := func(value any) string {
		args = append(args, value)
		return "$" + strconv.Itoa(len(args))
	}
	if before > 0 {
		where = append(where, "number < "+arg(before))
	}
	if req.GetRepository() != "" {
		where = append(where, "repository = "+arg(strings.ToLower(req.GetRepository())))
	}
	if req.GetPullRequest() != 0 {
		where = append(where, "pull_request = "+arg(req.GetPullRequest()))
	}
	if req.GetSha() != "" {
		where = append(where, "sha = "+arg(req.GetSha()))
	}
	var states, actions []string
	for _, state := range req.GetStates() {
		states = append(states, arg(int32(state)))
	}
	for _, action := range req.GetActions() {
		actions = append(actions, arg(int32(action)))
	}
	if len(states) > 0 {
		where = append(where, "state IN ("+strings.Join(states, ", ")+")")
	}
	if len(actions) > 0 {
		where = append(where, "action IN ("+strings.Join(actions, ", ")+")")
	}
	query := `SELECT ` + buildColumns + ` FROM builds`
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY number DESC LIMIT " + arg(limit)
	found, err := collect(ctx, s.db.Read(), scanBuild, query, args...)
	return found, sqldb.Kind(err)
}

// GetBuild shows one build.
func (s *Service) GetBuild(ctx context.Context, req *schedulerv1.GetBuildRequest) (*schedulerv1.GetBuildResponse, error) {
	b, err := s.readWhole(ctx, req.GetBuildId())
	if err != nil {
		return nil, err
	}
	return &schedulerv1.GetBuildResponse{Build: b}, nil
}

// readWhole reads a build with its steps and the size of its log.
func (s *Service) readWhole(ctx context.Context, id string) (*schedulerv1.Build, error) {
	pool := s.store.db.Read()
	b, err := readBuild(ctx, pool, id, "")
	if err != nil {
		return nil, err
	}
	if b.Steps, err = steps(ctx, pool, b); err != nil {
		return nil, fmt.Errorf("steps of build %s: %w", id, sqldb.Kind(err))
	}
	if b.GetAttempt() > 0 {
		a, err := readAttempt(ctx, pool, id, b.GetAttempt(), "")
		if err != nil {
			return nil, err
		}
		b.LogSize = a.logSize
	}
	return b.Build, nil
}

// steps are the steps of the latest attempt: the planned ones, as far as its
// runner has told of them, and what the end of the build means for the rest.
func steps(ctx context.Context, q querier, b *build) ([]*schedulerv1.Step, error) {
	all := b.plannedSteps()
	told, err := readSteps(ctx, q, b.GetId(), b.GetAttempt())
	if err != nil {
		return nil, err
	}
	for _, step := range told {
		if n := int(step.GetNumber()); n >= 1 && n <= len(all) {
			all[n-1] = step
		}
	}
	if !ended(b.GetState()) {
		return all, nil
	}
	for _, step := range all {
		switch step.GetState() {
		case schedulerv1.Step_STATE_PENDING:
			step.State = schedulerv1.Step_STATE_SKIPPED
		case schedulerv1.Step_STATE_RUNNING:
			step.State = schedulerv1.Step_STATE_STOPPED
		default:
		}
	}
	return all, nil
}

// WatchBuild sends a build at each change until it has ended.
func (s *Service) WatchBuild(req *schedulerv1.WatchBuildRequest, stream schedulerv1.BuildService_WatchBuildServer) error {
	ctx := stream.Context()
	changed, leave := s.hub.subscribe(buildTopic(req.GetBuildId()))
	defer leave()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
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
		if ended(b.GetState()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops: ask again")
		case <-changed:
		case <-poll.C:
		}
	}
}

// CancelBuild asks a build to stop.
func (s *Service) CancelBuild(ctx context.Context, req *schedulerv1.CancelBuildRequest) (*schedulerv1.CancelBuildResponse, error) {
	message := req.GetMessage()
	if utf8.RuneCountInString(message) > cancelMessage {
		return nil, fault.Newf(fault.Invalid, "message: at most %d characters", cancelMessage)
	}
	if message == "" {
		message = "cancelled by an administrator"
	}
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		b, err := t.build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		if ended(b.GetState()) {
			return fault.Newf(fault.Conflict, "build %s has ended already", req.GetBuildId())
		}
		return s.cancel(ctx, t, b, schedulerv1.Build_REASON_CANCEL_ASKED, message)
	})
	if err != nil {
		return nil, err
	}
	b, err := s.readWhole(ctx, req.GetBuildId())
	return &schedulerv1.CancelBuildResponse{Build: b}, err
}
