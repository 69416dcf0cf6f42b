package scheduler

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// freezeMessage is, in characters, what fits a commit status with the words around it.
const freezeMessage = 100

// environmentKey is where a page of environments ended.
type environmentKey struct {
	repositoryID int64
	name         string
}

func (k environmentKey) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(k.repositoryID, 10) + "/" + k.name))
}

func parseEnvironmentKey(token string) (environmentKey, error) {
	if token == "" {
		return environmentKey{}, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	digits, name, split := strings.Cut(string(text), "/")
	id, idErr := strconv.ParseInt(digits, 10, 64)
	if err != nil || !split || idErr != nil {
		return environmentKey{}, fault.New(fault.Invalid, "page_token is not one of ours")
	}
	return environmentKey{id, name}, nil
}

// ListEnvironments lists environments.
func (s *Service) ListEnvironments(ctx context.Context, req *schedulerv1.ListEnvironmentsRequest) (*schedulerv1.ListEnvironmentsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parseEnvironmentKey(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.store.readEnvironments(ctx, req.GetRepository(), after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list environments: %w", err)
	}
	answer := &schedulerv1.ListEnvironmentsResponse{}
	if len(found) > size {
		found = found[:size]
		answer.NextPageToken = environmentKey{found[size-1].repositoryID, found[size-1].name}.token()
	}
	for _, e := range found {
		shown, err := showEnvironment(ctx, s.store.db.Read(), e)
		if err != nil {
			return nil, err
		}
		answer.Environments = append(answer.Environments, shown)
	}
	return answer, nil
}

// GetEnvironment shows one environment.
func (s *Service) GetEnvironment(ctx context.Context, req *schedulerv1.GetEnvironmentRequest) (*schedulerv1.GetEnvironmentResponse, error) {
	if err := checkEnvironment(req.GetEnvironment()); err != nil {
		return nil, err
	}
	found, err := s.store.readEnvironments(ctx, req.GetRepository(), environmentKey{}, largestPage)
	if err != nil {
		return nil, fmt.Errorf("environment %s of %s: %w", req.GetEnvironment(), req.GetRepository(), err)
	}
	for _, e := range found {
		if e.name == req.GetEnvironment() && strings.EqualFold(e.repository, req.GetRepository()) {
			shown, err := showWhole(ctx, s.store.db.Read(), e)
			return &schedulerv1.GetEnvironmentResponse{Environment: shown}, err
		}
	}
	return nil, fault.Newf(fault.NotFound, "nothing was ever to be deployed to %s of %s", req.GetEnvironment(), req.GetRepository())
}

// FreezeEnvironment lets no further deploy begin.
func (s *Service) FreezeEnvironment(ctx context.Context, req *schedulerv1.FreezeEnvironmentRequest) (*schedulerv1.FreezeEnvironmentResponse, error) {
	switch length := utf8.RuneCountInString(req.GetMessage()); {
	case length == 0:
		return nil, fault.New(fault.Invalid, "message: say why, for those who wait")
	case length > freezeMessage:
		return nil, fault.Newf(fault.Invalid, "message: at most %d characters", freezeMessage)
	}
	shown, err := s.steer(ctx, req.GetRepository(), req.GetEnvironment(), func(ctx context.Context, t *tx, e *environment) error {
		if e.frozen.IsZero() {
			e.frozen = t.now
		}
		e.freezeMessage = req.GetMessage()
		if err := s.yield(ctx, t, e); err != nil {
			return err
		}
		return s.moveOn(ctx, t, e)
	})
	return &schedulerv1.FreezeEnvironmentResponse{Environment: shown}, err
}

// UnfreezeEnvironment lets deploys go on.
func (s *Service) UnfreezeEnvironment(ctx context.Context, req *schedulerv1.UnfreezeEnvironmentRequest) (*schedulerv1.UnfreezeEnvironmentResponse, error) {
	shown, err := s.steer(ctx, req.GetRepository(), req.GetEnvironment(), func(ctx context.Context, t *tx, e *environment) error {
		e.frozen, e.freezeMessage = time.Time{}, ""
		return s.moveOn(ctx, t, e)
	})
	return &schedulerv1.UnfreezeEnvironmentResponse{Environment: shown}, err
}

// RollBackEnvironment deploys once more what an earlier deploy put there.
func (s *Service) RollBackEnvironment(ctx context.Context, req *schedulerv1.RollBackEnvironmentRequest) (*schedulerv1.RollBackEnvironmentResponse, error) {
	id, err := s.newID()
	if err != nil {
		return nil, err
	}
	_, err = s.steer(ctx, req.GetRepository(), req.GetEnvironment(), func(ctx context.Context, t *tx, e *environment) error {
		of, err := t.build(ctx, req.GetBuildId())
		if err != nil {
			return err
		}
		id, err = s.rollBack(ctx, t, e, of, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	b, err := s.readWhole(ctx, id)
	return &schedulerv1.RollBackEnvironmentResponse{Build: b}, err
}

func checkEnvironment(name string) error {
	if deployTo(name) == schedulerv1.Build_ACTION_UNSPECIFIED {
		return fault.Newf(fault.Invalid, "environment %q: use staging or production", name)
	}
	return nil
}

// steer changes an environment and shows it as it is then.
func (s *Service) steer(ctx context.Context, repository, name string, do func(ctx context.Context, t *tx, e *environment) error) (*schedulerv1.Environment, error) {
	if err := checkEnvironment(name); err != nil {
		return nil, err
	}
	var shown *schedulerv1.Environment
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		e, err := t.findEnvironment(ctx, repository, name)
		if err != nil {
			return err
		}
		if err := do(ctx, t, e); err != nil {
			return err
		}
		shown, err = showWhole(ctx, t, e)
		return err
	})
	return shown, err
}

// showEnvironment is what people see of an environment in a list.
func showEnvironment(ctx context.Context, q querier, e *environment) (*schedulerv1.Environment, error) {
	shown := &schedulerv1.Environment{Repository: e.repository, Name: e.name, FreezeMessage: e.freezeMessage}
	if !e.frozen.IsZero() {
		shown.FreezeTime = timestamppb.New(e.frozen)
	}
	for _, part := range []struct {
		id string
		to **schedulerv1.Build
	}{{e.deployed, &shown.Deployed}, {e.holder, &shown.Deploying}} {
		if part.id == "" {
			continue
		}
		b, err := readBuild(ctx, q, part.id, "")
		if err != nil {
			return nil, fmt.Errorf("environment %s of %s: %w", e.name, e.repository, err)
		}
		*part.to = b.Build
	}
	return shown, nil
}

// showWhole shows who waits, too.
func showWhole(ctx context.Context, q querier, e *environment) (*schedulerv1.Environment, error) {
	shown, err := showEnvironment(ctx, q, e)
	if err != nil {
		return nil, err
	}
	line, err := waiting(ctx, q, e, "")
	for _, w := range line {
		shown.Waiting = append(shown.Waiting, w.Build)
	}
	return shown, sqldb.Kind(err)
}

// rollBack makes the build that repeats an earlier deploy; or finds it, where it
// was asked for before and has not ended.
func (s *Service) rollBack(ctx context.Context, t *tx, e *environment, of *build, id string) (string, error) {
	if of.GetEnvironment() != e.name || of.GetRepository().GetId() != e.repositoryID ||
		of.GetState() != schedulerv1.Build_STATE_PASSED {
		return "", fault.Newf(fault.Conflict, "build %s is no successful deploy to %s of %s", of.GetId(), e.name, e.repository)
	}
	waiting, err := waiting(ctx, t, e, t.locked)
	if err != nil {
		return "", err
	}
	if e.holder != "" {
		holder, err := t.build(ctx, e.holder)
		if err != nil {
			return "", err
		}
		waiting = append(waiting, holder)
	}
	for _, w := range waiting {
		if w.GetRollBackOf() == of.GetId() && !ended(w.GetState()) {
			return w.GetId(), nil
		}
	}
	if err := s.yield(ctx, t, e); err != nil {
		return "", err
	}
	b := s.repeat(ctx, t, of, id)
	b.RollBackOf = of.GetId()
	b.State, b.due = schedulerv1.Build_STATE_WAITING, time.Time{}
	b.Reason, b.Message = e.holdsBack(b)
	if err := t.addBuild(ctx, b); err != nil {
		return "", err
	}
	return id, s.moveOn(ctx, t, e)
}

// repeat is a build that runs again what another ran, not stored yet.
func (s *Service) repeat(ctx context.Context, t *tx, of *build, id string) *build {
	return &build{config: of.config, traceparent: telemetry.Traceparent(ctx), Build: &schedulerv1.Build{
		Id: id, Url: s.buildURL(id), CreateTime: timestamppb.New(t.now), TraceId: telemetry.TraceID(ctx),

		Repository: of.GetRepository(), InstallationId: of.GetInstallationId(), Action: of.GetAction(), Sha: of.GetSha(), Ref: of.GetRef(), BaseRef: of.GetBaseRef(),
		PullRequest: of.GetPullRequest(), Title: of.GetTitle(), CommitCount: of.GetCommitCount(), Context: of.GetContext(), Environment: of.GetEnvironment(), Job: of.GetJob(),
		Image: of.GetImage(), EnvironmentUrl: of.GetEnvironmentUrl(), StepCount: of.GetStepCount(),
	}}
}
