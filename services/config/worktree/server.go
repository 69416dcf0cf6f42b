package worktree

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/config"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/config/mirror"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// Server answers what the scheduler asks config, from a snapshot.
type Server struct {
	configv1.UnimplementedBuildConfigServiceServer
	configv1.UnimplementedSourceServiceServer
	configv1.UnimplementedPullRequestServiceServer
	configv1.UnimplementedCommitServiceServer
	configv1.UnimplementedCollaboratorServiceServer
	configv1.UnimplementedRepositoryServiceServer

	*Snapshot
	// Pull is the pull request that the snapshot is of; nil: none.
	Pull *eventv1.PullRequest
	// Tag is the name of a tag at the snapshot; "" for none.
	Tag string
	// Choose leaves of the snapshot's file what is to be run. It changes the file.
	Choose func(*configv1.BuildConfig)
}

// Register registers the services.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	configv1.RegisterBuildConfigServiceServer(r, s)
	configv1.RegisterSourceServiceServer(r, s)
	configv1.RegisterPullRequestServiceServer(r, s)
	configv1.RegisterCommitServiceServer(r, s)
	configv1.RegisterCollaboratorServiceServer(r, s)
	configv1.RegisterRepositoryServiceServer(r, s)
}

// Access says who may call what: the scheduler alone.
func Access() map[string]rpc.Access {
	scheduler, access := rpc.Access{Rooms: []string{"scheduler"}}, map[string]rpc.Access{}
	for _, method := range []string{
		configv1.BuildConfigService_GetBuildConfig_FullMethodName, configv1.SourceService_GetSource_FullMethodName,
		configv1.SourceService_PrepareSource_FullMethodName, configv1.SourceService_Merge_FullMethodName,
		configv1.PullRequestService_GetPullRequest_FullMethodName, configv1.CommitService_GetCommit_FullMethodName,
		configv1.CommitService_CompareCommits_FullMethodName, configv1.CommitService_FindCommit_FullMethodName,
		configv1.CollaboratorService_GetPermission_FullMethodName, configv1.RepositoryService_GetRepository_FullMethodName,
	} {
		access[method] = scheduler
	}
	return access
}

// Repository is what is built.
func (s *Snapshot) Repository() *eventv1.Repository {
	return &eventv1.Repository{Id: repositoryID, Owner: s.Owner, Name: s.Name, DefaultBranch: s.DefaultBranch, Private: true}
}

// File reads .forge.yml of the snapshot.
func (s *Snapshot) File(ctx context.Context) (*configv1.GetBuildConfigResponse, error) {
	return s.fileAt(ctx, s.SHA)
}

func (s *Snapshot) fileAt(ctx context.Context, sha string) (*configv1.GetBuildConfigResponse, error) {
	listed, err := s.bare.run(ctx, "ls-tree", "-z", sha, "--", buildfile.Name, buildfile.OtherName)
	if err != nil {
		return nil, fault.Newf(fault.NotFound, "%w", err)
	}
	entries := strings.Split(strings.TrimSuffix(listed, "\x00"), "\x00")
	switch {
	case listed == "":
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}, nil
	case len(entries) > 1:
		return config.TwoFiles(), nil
	}
	about, name, _ := strings.Cut(entries[0], "\t")
	mode, _, _ := strings.Cut(about, " ")
	if kind := map[string]string{"040000": "folder", submoduleMode: "submodule", "120000": "symbolic link"}[mode]; kind != "" {
		return config.NotFile(name, kind), nil
	}
	text, err := s.bare.run(ctx, "cat-file", "blob", sha+":"+name)
	if err != nil {
		return nil, err
	}
	return config.Read(name, []byte(text)), nil
}

// GetBuildConfig implements configv1.BuildConfigServiceServer.
func (s *Server) GetBuildConfig(ctx context.Context, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	sha := req.GetSha()
	if req.GetBranch() != "" {
		sha = s.bare.line(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+req.GetBranch()+"^{commit}")
		if sha == "" {
			return nil, fault.Newf(fault.NotFound, "there is no branch %s here", req.GetBranch())
		}
	}
	read, err := s.fileAt(ctx, sha)
	if err != nil || read.GetConfig() == nil {
		return read, err
	}
	s.Choose(read.GetConfig())
	changed, known, err := s.changed(ctx, req)
	if err != nil || !known {
		return read, err
	}
	return config.Narrow(read, req.GetPart(), changed), nil
}

// changed are the files that a commit changes, where that is known.
func (s *Server) changed(ctx context.Context, req *configv1.GetBuildConfigRequest) (names []string, known bool, err error) {
	base := req.GetBaseSha()
	if req.GetPullRequest() != 0 {
		base = s.bare.line(ctx, "merge-base", s.Pull.GetBase().GetSha(), req.GetSha())
	}
	if req.GetChange() == nil || strings.Trim(base, "0") == "" {
		return nil, false, nil
	}
	text, err := s.bare.run(ctx, "diff", "--name-only", "--no-renames", "-z", base, req.GetSha(), "--")
	if err != nil || text == "" { // of no change nothing is proven
		return nil, false, err
	}
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), true, nil
}

// GetSource implements configv1.SourceServiceServer.
func (s *Server) GetSource(req *configv1.GetSourceRequest, stream grpc.ServerStreamingServer[configv1.GetSourceResponse]) error {
	if req.GetCheckout() == nil {
		return fault.New(fault.Invalid, "forgexec is of another version: it does not take a checkout")
	}
	want, err := config.Wanted(req)
	if err != nil {
		return err
	}
	if req.GetCheckout().GetSubmodules() {
		want.Submodule = s.submodule
	}
	err = config.Send(stream, func(w io.Writer) error { return s.mirrors.Checkout(stream.Context(), s.remote, want, w) })
	if err != nil && fault.KindOf(err) == fault.Internal { // who works here is to see it, and it does not pass by itself
		return fault.Newf(fault.Invalid, "%w", err)
	}
	return err
}

// PrepareSource implements configv1.SourceServiceServer.
func (s *Server) PrepareSource(context.Context, *configv1.PrepareSourceRequest) (*configv1.PrepareSourceResponse, error) {
	return &configv1.PrepareSourceResponse{}, nil
}

// Merge implements configv1.SourceServiceServer.
func (s *Server) Merge(ctx context.Context, req *configv1.MergeRequest) (*configv1.MergeResponse, error) {
	return config.Merged(s.mirrors.Merge(ctx, s.remote, mirror.Want{SHA: req.GetSha(), Into: req.GetIntoSha()}))
}

// GetPullRequest implements configv1.PullRequestServiceServer.
func (s *Server) GetPullRequest(_ context.Context, req *configv1.GetPullRequestRequest) (*configv1.GetPullRequestResponse, error) {
	if s.Pull.GetNumber() != req.GetNumber() {
		return nil, fault.Newf(fault.NotFound, "there is no pull request #%d here", req.GetNumber())
	}
	return &configv1.GetPullRequestResponse{PullRequest: s.Pull}, nil
}

// GetCommit implements configv1.CommitServiceServer.
func (s *Server) GetCommit(ctx context.Context, req *configv1.GetCommitRequest) (*configv1.GetCommitResponse, error) {
	message, err := s.bare.run(ctx, "log", "-1", "--format=%B", req.GetSha(), "--")
	if err != nil {
		return nil, fault.Newf(fault.NotFound, "%w", err)
	}
	return &configv1.GetCommitResponse{Sha: req.GetSha(), Message: strings.TrimSpace(message)}, nil
}

// CompareCommits implements configv1.CommitServiceServer.
func (s *Server) CompareCommits(ctx context.Context, req *configv1.CompareCommitsRequest) (*configv1.CompareCommitsResponse, error) {
	counted, err := s.bare.run(ctx, "rev-list", "--left-right", "--count", req.GetBase()+"..."+req.GetHead())
	if err != nil {
		return nil, fault.Newf(fault.NotFound, "%w", err)
	}
	var behind, ahead int
	if _, err := fmt.Sscan(counted, &behind, &ahead); err != nil {
		return nil, fmt.Errorf("git rev-list: %s: %w", strconv.Quote(counted), err)
	}
	relation := configv1.CompareCommitsResponse_RELATION_IDENTICAL
	switch {
	case ahead > 0 && behind > 0:
		relation = configv1.CompareCommitsResponse_RELATION_DIVERGED
	case ahead > 0:
		relation = configv1.CompareCommitsResponse_RELATION_AHEAD
	case behind > 0:
		relation = configv1.CompareCommitsResponse_RELATION_BEHIND
	}
	return &configv1.CompareCommitsResponse{Relation: relation}, nil
}

// FindCommit implements configv1.CommitServiceServer: what is looked for by a branch, by a
// tag or by nothing is the snapshot.
func (s *Server) FindCommit(ctx context.Context, req *configv1.FindCommitRequest) (*configv1.FindCommitResponse, error) {
	if sha := req.GetSha(); sha != "" && sha != s.SHA {
		return nil, fault.Newf(fault.NotFound, "%s is not what the working tree has", sha)
	}
	found := &configv1.FindCommitResponse{Repository: s.Repository(), Sha: s.SHA, Newest: true, Title: s.Title(ctx)}
	if req.GetTag() == "" {
		found.Branch = cmp.Or(req.GetBranch(), s.Branch, s.DefaultBranch)
	}
	return found, nil
}

// Title is the first line of the snapshot's message.
func (s *Snapshot) Title(ctx context.Context) string {
	return s.bare.line(ctx, "log", "-1", "--format=%s", s.SHA, "--")
}

// GetPermission implements configv1.CollaboratorServiceServer: whoever works here may do
// anything here.
func (s *Server) GetPermission(context.Context, *configv1.GetPermissionRequest) (*configv1.GetPermissionResponse, error) {
	return &configv1.GetPermissionResponse{Permission: configv1.GetPermissionResponse_PERMISSION_ADMIN}, nil
}

// GetRepository implements configv1.RepositoryServiceServer.
func (s *Server) GetRepository(_ context.Context, req *configv1.GetRepositoryRequest) (*configv1.GetRepositoryResponse, error) {
	if !strings.EqualFold(req.GetOwner()+"/"+req.GetName(), s.Owner+"/"+s.Name) {
		return nil, fault.Newf(fault.NotFound, "there is no repository %s/%s here", req.GetOwner(), req.GetName())
	}
	return &configv1.GetRepositoryResponse{Repository: s.Repository()}, nil
}
