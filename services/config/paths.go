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

// filter is what must match a changed file: the paths of the whole file, or those
// that a job's condition names.
type filter struct {
	job   string // empty: the whole file
	paths []*configv1.Paths
}

// filtersOf are the filters of a file and of the jobs of one of its parts, or of
// all parts.
func filtersOf(config *configv1.BuildConfig, part configv1.GetBuildConfigRequest_Part) []filter {
	var filters []filter
	if config.GetPaths() != nil {
		filters = append(filters, filter{paths: []*configv1.Paths{config.GetPaths()}})
	}
	staging := config.GetStaging()
	if len(staging.GetCommands())+len(staging.GetJobs()) == 0 {
		staging = config.GetExecute()
	}
	pipelines := map[configv1.GetBuildConfigRequest_Part][]*configv1.Pipeline{
		configv1.GetBuildConfigRequest_PART_UNSPECIFIED: {config.GetExecute(), config.GetStaging(), config.GetPush().GetExecute()},
		configv1.GetBuildConfigRequest_PART_EXECUTE:     {config.GetExecute()},
		configv1.GetBuildConfigRequest_PART_STAGING:     {staging},
		configv1.GetBuildConfigRequest_PART_PUSH:        {config.GetPush().GetExecute()},
	}[part]
	at := map[string]int{}
	for _, pipeline := range pipelines {
		for _, job := range pipeline.GetJobs() {
			n, known := at[job.GetName()]
			if !known {
				n = len(filters)
				at[job.GetName()] = n
				filters = append(filters, filter{job: job.GetName()})
			}
			// The paths of none match every file.
			filters[n].paths = append(filters[n].paths, &configv1.Paths{Include: job.GetCondition().GetPaths()})
		}
	}
	return slices.DeleteFunc(filters, func(f filter) bool {
		return f.job != "" && slices.ContainsFunc(f.paths, func(p *configv1.Paths) bool { return len(p.GetInclude()) == 0 })
	})
}

// Narrow is a read file, held against the files that a commit changes, by their paths:
// it names the jobs whose paths match none of them, or says so of the whole file.
func Narrow(read *configv1.GetBuildConfigResponse, part configv1.GetBuildConfigRequest_Part, changed []string) *configv1.GetBuildConfigResponse {
	files := make([]*github.CommitFile, len(changed))
	for i := range changed {
		files[i] = &github.CommitFile{Filename: &changed[i]}
	}
	return narrowed(read, unmatched(filtersOf(read.GetConfig(), part), files))
}

// narrowed is a read file of which these filters match nothing of a change.
func narrowed(read *configv1.GetBuildConfigResponse, outside []filter) *configv1.GetBuildConfigResponse {
	answer := &configv1.GetBuildConfigResponse{Outcome: read.GetOutcome()}
	for _, f := range outside {
		if f.job == "" {
			answer.NoMatchingPaths = true
		} else {
			answer.JobsWithoutMatchingPaths = append(answer.GetJobsWithoutMatchingPaths(), f.job)
		}
	}
	return answer
}

// outside returns those filters that are proven to match no file of a change. Only
// a complete list of the changed files proves it; where GitHub refuses the list,
// nothing is proven.
func (s *Service) outside(ctx context.Context, g grant, req *configv1.GetBuildConfigRequest, filters []filter) ([]filter, error) {
	client, err := s.clients.client(ctx, g)
	if err != nil {
		return nil, err
	}
	var outside []filter
	switch change := req.GetChange().(type) {
	case *configv1.GetBuildConfigRequest_PullRequest:
		outside, err = pullRequestOutside(ctx, client, g, int(change.PullRequest), req.GetSha(), filters)
	case *configv1.GetBuildConfigRequest_BaseSha:
		if strings.Trim(change.BaseSha, "0") != "" { // zeros: the branch is new
			outside, err = comparisonOutside(ctx, client, g, change.BaseSha, req.GetSha(), filters)
		}
	}
	if err == nil {
		return outside, nil
	}
	err = notYet(githubFault(err), s.recent(req.GetEventTime()))
	err = fmt.Errorf("changed files of %s at %s: %w", g.fullName(), req.GetSha(), err)
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Exhausted) {
		return nil, err
	}
	s.log.WarnContext(ctx, "list of changed files failed; the commit is built as if its paths matched", "error", err)
	return nil, nil
}

func pullRequestOutside(ctx context.Context, client *github.Client, g grant, number int, sha string, filters []filter) ([]filter, error) {
	count := 0
	for options := (&github.ListOptions{PerPage: 100}); ; {
		page, resp, err := client.PullRequests.ListFiles(ctx, g.owner, g.name, number, options)
		if err != nil {
			return nil, err
		}
		count += len(page)
		if filters = unmatched(filters, page); len(filters) == 0 {
			return nil, nil
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			break
		}
	}
	if count == 0 || count >= maxPullFiles {
		return nil, nil
	}
	// GitHub lists the files of the present head, which must still be this commit.
	pull, _, err := client.PullRequests.Get(ctx, g.owner, g.name, number)
	if err != nil || pull.GetHead().GetSHA() != sha {
		return nil, err
	}
	return filters, nil
}

func comparisonOutside(ctx context.Context, client *github.Client, g grant, base, sha string, filters []filter) ([]filter, error) {
	// All files come with the first page of commits.
	compared, _, err := client.Repositories.CompareCommits(ctx, g.owner, g.name, base, sha, &github.ListOptions{Page: 1, PerPage: 1})
	if err != nil {
		return nil, err
	}
	// GitHub does not list what a forced push took away.
	if compared.GetStatus() != "ahead" || len(compared.Files) == 0 || len(compared.Files) >= maxComparedFiles {
		return nil, nil
	}
	return unmatched(filters, compared.Files), nil
}

// unmatched are the filters that match none of some files.
func unmatched(filters []filter, files []*github.CommitFile) []filter {
	return slices.DeleteFunc(slices.Clone(filters), func(f filter) bool {
		return slices.ContainsFunc(f.paths, func(paths *configv1.Paths) bool { return slices.ContainsFunc(files, matchedBy(paths)) })
	})
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
