package config

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/kit/fault"
)

// maxCachedConfig is the largest response in bytes that is cached, so that a
// hostile file does not fill the cache. Most are about a thousand bytes.
const maxCachedConfig = 64 << 10

// commitKey is what caches go by: neither part ever comes to mean something else.
type commitKey struct {
	repository int64
	sha        string
}

func (g grant) commit(sha string) commitKey { return commitKey{g.repository, sha} }

var shaPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func checkSHA(sha string) error {
	if !shaPattern.MatchString(sha) {
		return fault.Newf(fault.Invalid, "%q is not the full sha of a commit", sha)
	}
	return nil
}

// GetBuildConfig implements configv1.BuildConfigServiceServer.
func (s *Service) GetBuildConfig(ctx context.Context, req *configv1.GetBuildConfigRequest) (*configv1.GetBuildConfigResponse, error) {
	g, err := grantFor(req.GetRepository(), req.GetInstallationId(), roomConfig)
	if err != nil {
		return nil, err
	}
	if err := checkSHA(req.GetSha()); err != nil {
		return nil, err
	}
	read, err := s.buildConfig(ctx, g, req.GetSha())
	paths := read.GetConfig().GetPaths()
	if err != nil || paths == nil || req.GetChange() == nil {
		return read, err
	}
	outside, err := s.outsidePaths(ctx, g, req, paths)
	if err != nil {
		return nil, err
	}
	return &configv1.GetBuildConfigResponse{Outcome: read.GetOutcome(), NoMatchingPaths: outside}, nil
}

// buildConfig returns what a commit wants built, whatever it changes.
func (s *Service) buildConfig(ctx context.Context, g grant, sha string) (*configv1.GetBuildConfigResponse, error) {
	if g.repository == 0 {
		return s.readConfig(ctx, g, sha)
	}
	key := g.commit(sha)
	if cached, ok := s.configs.Get(key); ok {
		return cached, nil
	}
	return s.reading.do(ctx, key, func(ctx context.Context) (*configv1.GetBuildConfigResponse, error) {
		if cached, ok := s.configs.Get(key); ok { // read since the first Get
			return cached, nil
		}
		read, err := s.readConfig(ctx, g, sha)
		if err == nil && read.GetForbidden() == nil && proto.Size(read) <= maxCachedConfig {
			s.configs.Add(key, read)
		}
		return read, err
	})
}

func (s *Service) readConfig(ctx context.Context, g grant, sha string) (*configv1.GetBuildConfigResponse, error) {
	client, err := s.clients.client(ctx, g)
	switch fault.KindOf(err) {
	case fault.Denied, fault.Conflict, fault.NotFound, fault.Invalid: // not granted, suspended, not installed there
		return forbidden(err.Error()), nil
	default:
		if err != nil {
			return nil, err
		}
	}
	file, _, _, err := client.Repositories.GetContents(ctx, g.owner, g.name, buildfile.Name, &github.RepositoryContentGetOptions{Ref: sha})
	switch {
	case err == nil:
		return parseFile(file)
	case tooLarge(err):
		return oversize(), nil
	case slices.Contains(unclearStatuses, statusOf(err)):
		return s.explainNotFound(ctx, client, g, sha, err)
	}
	if err = githubFault(err); fault.Is(err, fault.Denied) {
		return forbidden(err.Error()), nil
	}
	return nil, fmt.Errorf("%s of %s at %s: %w", buildfile.Name, g.fullName(), sha, err)
}

// unclearStatuses are those that may be about the file or about the commit. GitHub
// documents 200, 302, 304, 403 and 404 for the contents API. 409 and 422 come from
// its lookup of the commit, where the repository is empty or has no such commit:
// https://docs.github.com/rest/repos/contents#get-repository-content
// https://docs.github.com/rest/commits/commits#get-a-commit
var unclearStatuses = []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}

// explainNotFound tells an absent file from an absent or hidden commit or
// repository: GitHub says "Not Found" to most of them. Where the commit exists and
// GitHub refuses a request like every other, nothing is known of the file. That is
// Unavailable, so that the caller repeats the call and the event is not lost.
func (s *Service) explainNotFound(ctx context.Context, client *github.Client, g grant, sha string, cause error) (*configv1.GetBuildConfigResponse, error) {
	gone := fault.Newf(fault.NotFound, "%s has no commit %s, or is gone", g.fullName(), sha)
	if refusal, ok := errors.AsType[*github.ErrorResponse](cause); ok && strings.HasPrefix(refusal.Message, "No commit found") {
		return nil, gone
	}
	_, _, err := client.Repositories.GetCommitSHA1(ctx, g.owner, g.name, sha, "")
	switch {
	case err == nil && statusOf(cause) == http.StatusNotFound:
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}, nil
	case err == nil:
		return nil, fault.Newf(fault.Unavailable, "%s of %s at %s: %s", buildfile.Name, g.fullName(), sha, githubFault(cause))
	case slices.Contains(unclearStatuses, statusOf(err)):
		return nil, gone
	}
	return nil, fmt.Errorf("commit %s of %s: %w", sha, g.fullName(), githubFault(err))
}

// parseFile parses what the contents API returned for the file's path; nil is a
// folder.
func parseFile(file *github.RepositoryContent) (*configv1.GetBuildConfigResponse, error) {
	kind := file.GetType()
	switch {
	case file == nil:
		kind = "folder"
	case file.SubmoduleGitURL != nil: // GitHub may call it a file
		kind = "submodule"
	case kind == "symlink":
		kind = "symbolic link"
	}
	if kind != "file" {
		return invalid("it is a " + kind + ": make it a file"), nil
	}
	if file.GetSize() > buildfile.MaxSize {
		return oversize(), nil
	}
	text, err := file.GetContent()
	if err != nil {
		return nil, fault.Newf(fault.Unavailable, "%s as GitHub sent it: %w", buildfile.Name, err)
	}
	config, problems := buildfile.Parse([]byte(text))
	if len(problems) > 0 {
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{
			Invalid: &configv1.ConfigInvalid{Problems: problems},
		}}, nil
	}
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: config}}, nil
}

func invalid(message string) *configv1.GetBuildConfigResponse {
	problem := &configv1.ConfigInvalid_Problem{Line: 1, Column: 1, Message: message}
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{
		Invalid: &configv1.ConfigInvalid{Problems: []*configv1.ConfigInvalid_Problem{problem}},
	}}
}

func oversize() *configv1.GetBuildConfigResponse { return invalid(buildfile.Oversize) }

func forbidden(message string) *configv1.GetBuildConfigResponse {
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Forbidden{
		Forbidden: &configv1.ConfigForbidden{Message: message},
	}}
}

// tooLarge reports whether GitHub refused to send a file since it has more than
// 100 MB.
func tooLarge(err error) bool {
	refusal, ok := errors.AsType[*github.ErrorResponse](err)
	return ok && slices.ContainsFunc(refusal.Errors, func(e github.Error) bool { return e.Code == "too_large" })
}
