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

// maxCachedConfig keeps a file of hostile size out of the cache; a usual one is
// a thousand bytes.
const maxCachedConfig = 64 << 10

// commit is what can be cached: neither part ever means something else.
type commit struct {
	repository int64
	sha        string
}

func (g grant) at(sha string) commit { return commit{g.repository, sha} }

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
	answer, err := s.config(ctx, g, req.GetSha())
	paths := answer.GetConfig().GetPaths()
	if err != nil || paths == nil || req.GetChange() == nil {
		return answer, err
	}
	missed, err := s.missed(ctx, g, req, paths)
	if err != nil {
		return nil, err
	}
	return &configv1.GetBuildConfigResponse{Outcome: answer.GetOutcome(), NoMatchingPaths: missed}, nil
}

// config is what a commit wants built, whatever it changes.
func (s *Service) config(ctx context.Context, g grant, sha string) (*configv1.GetBuildConfigResponse, error) {
	if g.repository == 0 {
		return s.readConfig(ctx, g, sha)
	}
	at := g.at(sha)
	if answer, ok := s.configs.Get(at); ok {
		return answer, nil
	}
	return s.configFlights.do(ctx, at, func(ctx context.Context) (*configv1.GetBuildConfigResponse, error) {
		if answer, ok := s.configs.Get(at); ok { // read between our look and our turn
			return answer, nil
		}
		answer, err := s.readConfig(ctx, g, sha)
		if err == nil && answer.GetForbidden() == nil && proto.Size(answer) <= maxCachedConfig {
			s.configs.Add(at, answer)
		}
		return answer, err
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
		return readFile(file)
	case tooLarge(err):
		return oversize(), nil
	case slices.Contains(unexplained, status(err)):
		return s.whyNotFound(ctx, client, g, sha, err)
	}
	if err = failure(err); fault.Is(err, fault.Denied) {
		return forbidden(err.Error()), nil
	}
	return nil, fmt.Errorf("%s of %s at %s: %w", buildfile.Name, g.fullName(), sha, err)
}

// unexplained are the answers that the commit explains. Of the contents API
// GitHub documents 200, 302, 304, 403 and 404; 409 and 422 come from where it
// looks up a commit, of an empty repository or that is not there:
// https://docs.github.com/rest/repos/contents#get-repository-content
// https://docs.github.com/rest/commits/commits#get-a-commit
var unexplained = []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}

// whyNotFound tells a file that is not there from a commit or a repository that
// is not, or that is hidden: GitHub says "Not Found" to most of them. Where the
// commit is there and GitHub finds fault with a request that asks as every other
// does, nothing is known of the file: that is trouble, and tried again, and never
// held against the event that asked.
func (s *Service) whyNotFound(ctx context.Context, client *github.Client, g grant, sha string, cause error) (*configv1.GetBuildConfigResponse, error) {
	gone := fault.Newf(fault.NotFound, "%s has no commit %s, or is gone", g.fullName(), sha)
	if answer, ok := errors.AsType[*github.ErrorResponse](cause); ok && strings.HasPrefix(answer.Message, "No commit found") {
		return nil, gone
	}
	_, _, err := client.Repositories.GetCommitSHA1(ctx, g.owner, g.name, sha, "")
	switch {
	case err == nil && status(cause) == http.StatusNotFound:
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}, nil
	case err == nil:
		return nil, fault.Newf(fault.Unavailable, "%s of %s at %s: %s", buildfile.Name, g.fullName(), sha, failure(cause))
	case slices.Contains(unexplained, status(err)):
		return nil, gone
	}
	return nil, fmt.Errorf("commit %s of %s: %w", sha, g.fullName(), failure(err))
}

// readFile parses what the contents API has at the file's path; nil is a folder.
func readFile(file *github.RepositoryContent) (*configv1.GetBuildConfigResponse, error) {
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

// status is that of GitHub's answer; 0 if there was none.
func status(err error) int {
	if answer, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return answer.Response.StatusCode
	}
	return 0
}

// tooLarge is GitHub's refusal to send a file of more than 100 MB.
func tooLarge(err error) bool {
	answer, ok := errors.AsType[*github.ErrorResponse](err)
	return ok && slices.ContainsFunc(answer.Errors, func(e github.Error) bool { return e.Code == "too_large" })
}
