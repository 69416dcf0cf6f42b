package config

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v62/github"
	"golang.org/x/sync/errgroup"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
	"github.com/forge-ci/forge/services/kit/fault"
)

// namedFile is what GitHub answered for one of the names that the file may have.
type namedFile struct {
	name    string
	content *github.RepositoryContent // nil of a folder
	err     error
}

// readConfig reads the file from GitHub under both of its names. A commit that
// holds both is invalid, so the second is asked for in any case, at the same time
// as the first.
func (s *Service) readConfig(ctx context.Context, g grant, sha string, recent bool) (*configv1.GetBuildConfigResponse, error) {
	client, err := s.clients.client(ctx, g)
	if recent && fault.Is(err, fault.NotFound) {
		return nil, lateFault(err)
	}
	switch fault.KindOf(err) {
	case fault.Denied, fault.Conflict, fault.NotFound, fault.Invalid: // not granted, suspended, not installed there
		return forbidden(err.Error()), nil
	default:
		if err != nil {
			return nil, err
		}
	}
	files := []namedFile{{name: buildfile.Name}, {name: buildfile.OtherName}}
	var reads errgroup.Group
	for i := range files {
		reads.Go(func() error {
			f := &files[i]
			f.content, _, _, f.err = client.Repositories.GetContents(ctx, g.owner, g.name, f.name, &github.RepositoryContentGetOptions{Ref: sha})
			return nil
		})
	}
	_ = reads.Wait() // the errors are in files
	there := slices.DeleteFunc(slices.Clone(files), func(f namedFile) bool { return statusOf(f.err) == http.StatusNotFound })
	switch {
	case len(there) == 0:
		return s.explainNotFound(ctx, client, g, sha, recent, files[0])
	case len(there) > 1 && there[0].err == nil && there[1].err == nil:
		return TwoFiles(), nil
	}
	for _, f := range there { // without both answers it is not known whether there are two files
		if f.err != nil {
			return s.explainRefusal(ctx, client, g, sha, recent, f)
		}
	}
	return parseFile(there[0])
}

// explainRefusal says what a refusal of the file means.
func (s *Service) explainRefusal(ctx context.Context, client *github.Client, g grant, sha string, recent bool, refused namedFile) (*configv1.GetBuildConfigResponse, error) {
	switch {
	case tooLarge(refused.err):
		return oversize(refused.name), nil
	case slices.Contains(unclearStatuses, statusOf(refused.err)):
		return s.explainNotFound(ctx, client, g, sha, recent, refused)
	}
	err := githubFault(refused.err)
	if fault.Is(err, fault.Denied) {
		return forbidden(err.Error()), nil
	}
	return nil, fmt.Errorf("%s of %s at %s: %w", refused.name, g.fullName(), sha, err)
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
// Unavailable, so that the caller repeats the call and the event is not lost. So is
// an absence that may be GitHub being late.
func (s *Service) explainNotFound(ctx context.Context, client *github.Client, g grant, sha string, recent bool, refused namedFile) (*configv1.GetBuildConfigResponse, error) {
	gone := fault.Newf(fault.NotFound, "%s has no commit %s, or is gone", g.fullName(), sha)
	if recent {
		gone = lateFault(gone)
	}
	if refusal, ok := errors.AsType[*github.ErrorResponse](refused.err); ok && strings.HasPrefix(refusal.Message, "No commit found") {
		return nil, gone
	}
	_, _, err := client.Repositories.GetCommitSHA1(ctx, g.owner, g.name, sha, "")
	switch {
	case err == nil && statusOf(refused.err) == http.StatusNotFound:
		if recent {
			if err := proveAbsence(ctx, client, g, sha); err != nil {
				return nil, err
			}
		}
		return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}, nil
	case err == nil:
		return nil, fault.Newf(fault.Unavailable, "%s of %s at %s: %s", refused.name, g.fullName(), sha, githubFault(refused.err))
	case slices.Contains(unclearStatuses, statusOf(err)):
		return nil, gone
	}
	return nil, fmt.Errorf("commit %s of %s: %w", sha, g.fullName(), githubFault(err))
}

// proveAbsence returns nil where the commit's tree lacks the file. GitHub has many
// servers: the one that did not find the file may not have had the commit yet, and
// another one found the commit. The tree tells whether it holds the file.
func proveAbsence(ctx context.Context, client *github.Client, g grant, sha string) error {
	tree, _, err := client.Git.GetTree(ctx, g.owner, g.name, sha, false)
	if err != nil {
		return lateFault(fmt.Errorf("tree of %s at %s: %w", g.fullName(), sha, githubFault(err)))
	}
	for _, entry := range tree.Entries {
		if name := entry.GetPath(); name == buildfile.Name || name == buildfile.OtherName {
			return lateFault(fmt.Errorf("%s of %s at %s is in the commit's tree, and yet GitHub does not find it", name, g.fullName(), sha))
		}
	}
	return nil
}

// parseFile parses what the contents API returned for the file's path.
func parseFile(f namedFile) (*configv1.GetBuildConfigResponse, error) {
	kind := f.content.GetType()
	switch {
	case f.content == nil:
		kind = "folder"
	case f.content.SubmoduleGitURL != nil: // GitHub may call it a file
		kind = "submodule"
	case kind == "symlink":
		kind = "symbolic link"
	}
	if kind != "file" {
		return NotFile(f.name, kind), nil
	}
	if f.content.GetSize() > buildfile.MaxSize {
		return oversize(f.name), nil
	}
	text, err := f.content.GetContent()
	if err != nil {
		return nil, fault.Newf(fault.Unavailable, "%s as GitHub sent it: %w", f.name, err)
	}
	return Read(f.name, []byte(text)), nil
}

// NotFile is the answer where something else has the file's name, such as a folder.
func NotFile(name, kind string) *configv1.GetBuildConfigResponse {
	return invalid(name, "it is a "+kind+": make it a file")
}

// Read is the answer that a file's text makes.
func Read(name string, text []byte) *configv1.GetBuildConfigResponse {
	config, problems := buildfile.Parse(text)
	if len(problems) > 0 {
		return invalidAt(name, problems...)
	}
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: config}}
}

// TwoFiles is the answer where a commit holds a file under each of its names.
func TwoFiles() *configv1.GetBuildConfigResponse { return invalid(buildfile.Name, buildfile.Both) }

// invalid is a problem of a whole file.
func invalid(file, message string) *configv1.GetBuildConfigResponse {
	return invalidAt(file, &buildfile.Problem{Line: 1, Column: 1, Message: message})
}

func invalidAt(file string, problems ...*buildfile.Problem) *configv1.GetBuildConfigResponse {
	for _, p := range problems {
		p.File = file
	}
	return &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{
		Invalid: &configv1.ConfigInvalid{Problems: problems},
	}}
}

func oversize(file string) *configv1.GetBuildConfigResponse {
	return invalid(file, buildfile.Oversize)
}

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
