package gateway

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// places plays the scheduler's EnvironmentService.
type places struct {
	schedulerv1.UnimplementedEnvironmentServiceServer
	mu         sync.Mutex
	all        []*schedulerv1.Environment
	rolledBack []string // the builds that were asked for
}

func placesAccess() map[string]rpc.Access {
	return map[string]rpc.Access{
		schedulerv1.EnvironmentService_ListEnvironments_FullMethodName:    {},
		schedulerv1.EnvironmentService_GetEnvironment_FullMethodName:      {},
		schedulerv1.EnvironmentService_FreezeEnvironment_FullMethodName:   {},
		schedulerv1.EnvironmentService_UnfreezeEnvironment_FullMethodName: {},
		schedulerv1.EnvironmentService_RollBackEnvironment_FullMethodName: {},
		schedulerv1.EnvironmentService_ReleaseEnvironment_FullMethodName:  {},
		schedulerv1.BuildService_GetBuildStatistics_FullMethodName:        {},
	}
}

func (p *places) ListEnvironments(_ context.Context, req *schedulerv1.ListEnvironmentsRequest) (*schedulerv1.ListEnvironmentsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := &schedulerv1.ListEnvironmentsResponse{}
	for _, e := range p.all {
		if req.GetRepository() == "" || req.GetRepository() == e.GetRepository() {
			shown := proto.CloneOf(e)
			shown.Waiting = nil
			answer.Environments = append(answer.Environments, shown)
		}
	}
	return answer, nil
}

func (p *places) find(repository, name string) (*schedulerv1.Environment, error) {
	at := slices.IndexFunc(p.all, func(e *schedulerv1.Environment) bool { return e.GetRepository() == repository && e.GetName() == name })
	if at < 0 {
		return nil, fault.Newf(fault.NotFound, "nothing was ever to be deployed to %s of %s", name, repository)
	}
	return p.all[at], nil
}

func (p *places) GetEnvironment(_ context.Context, req *schedulerv1.GetEnvironmentRequest) (*schedulerv1.GetEnvironmentResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.find(req.GetRepository(), req.GetEnvironment())
	return &schedulerv1.GetEnvironmentResponse{Environment: proto.CloneOf(e)}, err
}

func (p *places) FreezeEnvironment(_ context.Context, req *schedulerv1.FreezeEnvironmentRequest) (*schedulerv1.FreezeEnvironmentResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.find(req.GetRepository(), req.GetEnvironment())
	if err == nil && req.GetMessage() == "" {
		err = fault.New(fault.Invalid, "message: say why, for those who wait")
	}
	if err != nil {
		return nil, err
	}
	e.FreezeTime, e.FreezeMessage = timestamppb.Now(), req.GetMessage()
	return &schedulerv1.FreezeEnvironmentResponse{Environment: e}, nil
}

func (p *places) UnfreezeEnvironment(_ context.Context, req *schedulerv1.UnfreezeEnvironmentRequest) (*schedulerv1.UnfreezeEnvironmentResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.find(req.GetRepository(), req.GetEnvironment())
	if err != nil {
		return nil, err
	}
	e.FreezeTime, e.FreezeMessage = nil, ""
	return &schedulerv1.UnfreezeEnvironmentResponse{Environment: e}, nil
}

func (p *places) RollBackEnvironment(_ context.Context, req *schedulerv1.RollBackEnvironmentRequest) (*schedulerv1.RollBackEnvironmentResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rolledBack = append(p.rolledBack, req.GetBuildId())
	return &schedulerv1.RollBackEnvironmentResponse{Build: &schedulerv1.Build{Id: "b1"}}, nil
}

func (b *builds) GetBuildStatistics(context.Context, *schedulerv1.GetBuildStatisticsRequest) (*schedulerv1.GetBuildStatisticsResponse, error) {
	return &schedulerv1.GetBuildStatisticsResponse{Days: b.days}, b.err
}
