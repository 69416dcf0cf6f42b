package scheduler

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// modelSiblings are the rooms around the scheduler: the model answers what it calls.
type modelSiblings struct {
	*model
	// nil: nobody calls what the model does not answer.
	configv1.BuildConfigServiceClient
	configv1.CommitServiceClient
	configv1.CollaboratorServiceClient
	configv1.PullRequestServiceClient
	reporterv1.ReportServiceClient
}

// GetBuildConfig, GetCommit and CompareCommits are config's.
func (m modelSiblings) GetBuildConfig(_ context.Context, req *configv1.GetBuildConfigRequest, _ ...grpc.CallOption) (*configv1.GetBuildConfigResponse, error) {
	job := m.pipelineOf(req.GetSha())
	return valid(&configv1.BuildConfig{Image: "busybox", Execute: job, DeployStaging: job, DeployProduction: job, PullRequest: proto.CloneOf(m.said), Schedules: m.modelSchedules(), Environments: m.modelEnvironments(job), Concurrency: m.groupOf(req.GetSha())}), nil
}

func (m modelSiblings) GetCommit(context.Context, *configv1.GetCommitRequest, ...grpc.CallOption) (*configv1.GetCommitResponse, error) {
	return &configv1.GetCommitResponse{Message: "Add a till"}, nil
}

func (m modelSiblings) CompareCommits(_ context.Context, req *configv1.CompareCommitsRequest, _ ...grpc.CallOption) (*configv1.CompareCommitsResponse, error) {
	if m.unsure {
		return nil, fault.New(fault.Unavailable, "GitHub does not answer")
	}
	relation := configv1.CompareCommitsResponse_RELATION_AHEAD
	if mergeOf(req.GetHead()) < mergeOf(req.GetBase()) {
		relation = configv1.CompareCommitsResponse_RELATION_BEHIND
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, nil
}

// GetPermission lets all but eve write.
func (m modelSiblings) GetPermission(_ context.Context, req *configv1.GetPermissionRequest, _ ...grpc.CallOption) (*configv1.GetPermissionResponse, error) {
	permission := configv1.GetPermissionResponse_PERMISSION_WRITE
	if req.GetLogin() == "eve" {
		permission = configv1.GetPermissionResponse_PERMISSION_READ
	}
	return &configv1.GetPermissionResponse{Permission: permission}, nil
}

// Report is the reporter's: of a target the highest version counts.
func (m modelSiblings) Report(_ context.Context, req *reporterv1.ReportRequest, _ ...grpc.CallOption) (*reporterv1.ReportResponse, error) {
	if m.away {
		return nil, fault.New(fault.Unavailable, "the reporter is down")
	}
	b := req.GetBuild()
	if req.GetStanding() != 0 {
		return &reporterv1.ReportResponse{}, nil
	}
	if at := targetOf(b); req.GetVersion() > m.told[at].GetVersion() {
		m.told[at] = req
	} else if req.GetVersion() == m.told[at].GetVersion() && m.told[at].GetBuild().GetId() != b.GetId() {
		m.t.Errorf("version %d of %s is of build %s and of %s", req.GetVersion(), at, m.told[at].GetBuild().GetId(), b.GetId())
	}
	return &reporterv1.ReportResponse{}, nil
}

func (m modelSiblings) Promote(context.Context, *reporterv1.PromoteRequest, ...grpc.CallOption) (*reporterv1.PromoteResponse, error) {
	return &reporterv1.PromoteResponse{}, nil
}
