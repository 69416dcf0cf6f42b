package config

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-github/v62/github"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// GitHub lists no more files than these, and does not say where it leaves some out.
// https://docs.github.com/rest/pulls/pulls#list-pull-requests-files
// https://docs.github.com/rest/commits/commits#compare-two-commits
const (
	maxPullFiles     = 3000
	maxComparedFiles = 300
)

// outsidePaths reports whether it is proven that a change touches no file that
// paths match. Only a complete list of the changed files proves it; where GitHub
// refuses the list, nothing is proven.
func (s *Service) outsidePaths(ctx context.Context, g grant, req *configv1.GetBuildConfigRequest, paths *configv1.Paths) (bool, error) {
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return false, err
	}
	var outside bool
	switch change := req.GetChange().(type) {
	case *configv1.GetBuildConfigRequest_PullRequest:
		outside, err = pullRequestOutside(ctx, client, g, int(change.PullRequest), req.GetSha(), paths)
	case *configv1.GetBuildConfigRequest_BaseSha:
		if strings.Trim(change.BaseSha, "0") != "" { // zeros: the branch is new
			outside, err = comparisonOutside(ctx, client, g, change.BaseSha, req.GetSha(), paths)
		}
	}
	if err == nil {
		return outside, nil
	}
	err = notYet(githubFault(err), s.recent(req.GetEventTime()))
	err = fmt.Errorf("changed files of %s at %s: %w", g.fullName(), req.GetSha(), err)
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Exhausted) {
		return false, err
	}
	s.log.WarnContext(ctx, "list of changed files failed; the commit is built as if its paths matched", "error", err)
	return false, nil
}

func pullRequestOutside(ctx context.Context, client *github.Client, g grant, number int, sha string, paths *configv1.Paths) (bool, error) {
	count := 0
	for options := (&github.ListOptions{PerPage: 100}); ; {
		page, resp, err := client.PullRequests.ListFiles(ctx, g.owner, g.name, number, options)
		if err != nil {
			return false, err
		}
		count += len(page)
		if slices.ContainsFunc(page, matchedBy(paths)) {
			return false, nil
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			break
		}
	}
	if count == 0 || count >= maxPullFiles {
		return false, nil
	}
	// GitHub lists the files of the present head, which must still be this commit.
	pull, _, err := client.PullRequests.Get(ctx, g.owner, g.name, number)
	return err == nil && pull.GetHead().GetSHA() == sha, err
}

func comparisonOutside(ctx context.Context, client *github.Client, g grant, base, sha string, paths *configv1.Paths) (bool, error) {
	// All files come with the first page of commits.
	compared, _, err := client.Repositories.CompareCommits(ctx, g.owner, g.name, base, sha, &github.ListOptions{Page: 1, PerPage: 1})
	if err != nil {
		return false, err
	}
	// GitHub does not list what a forced push took away.
	complete := compared.GetStatus() == "ahead" && len(compared.Files) > 0 && len(compared.Files) < maxComparedFiles
	return complete && !slices.ContainsFunc(compared.Files, matchedBy(paths)), nil
}

// matchedBy reports whether paths match a file. One that was renamed counts under
// both names.
func matchedBy(paths *configv1.Paths) func(*github.CommitFile) bool {
	matches := func(name string) func(pattern string) bool {
		return func(pattern string) bool { return doublestar.MatchUnvalidated(pattern, name) }
	}
	return func(file *github.CommitFile) bool {
		for _, name := range []string{file.GetFilename(), file.GetPreviousFilename()} {
			included := len(paths.GetInclude()) == 0 || slices.ContainsFunc(paths.GetInclude(), matches(name))
			if name != "" && included && !slices.ContainsFunc(paths.GetIgnore(), matches(name)) {
				return true
			}
		}
		return false
	}
}
