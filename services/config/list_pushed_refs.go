package config

import (
	"context"
	"net/http"
	"slices"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-github/v62/github"
	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/config/buildfile"
)

// maxRefs bounds what is told of a repository.
const maxRefs = 2000

// ListPushedRefs implements configv1.RefServiceServer.
func (s *Service) ListPushedRefs(req *configv1.ListPushedRefsRequest, stream grpc.ServerStreamingServer[configv1.ListPushedRefsResponse]) error {
	reads := github.InstallationPermissions{Metadata: new("read"), Contents: new("read")}
	return s.everyRepository(stream.Context(), req.GetFrugal(), reads, func(ctx context.Context, client *github.Client, in *github.Repository, installation int64) (calls int, err error) {
		push, calls, err := pushOf(ctx, client, in)
		if push == nil || err != nil {
			return calls, err
		}
		refs, spent, err := namedRefs(ctx, client, in, push)
		if err != nil {
			return calls + spent, err
		}
		return calls + spent, stream.Send(&configv1.ListPushedRefsResponse{
			Repository: &eventv1.Repository{
				Id: in.GetID(), Owner: in.GetOwner().GetLogin(), Name: in.GetName(), DefaultBranch: in.GetDefaultBranch(), Private: in.GetPrivate(), Fork: in.GetFork(),
			},
			InstallationId: installation, Refs: refs, Patterns: slices.Concat(push.GetBranches(), push.GetTags()),
		})
	})
}

// pushOf is of which pushes the default branch's file wants something; nil where there is
// none, or it has errors.
func pushOf(ctx context.Context, client *github.Client, in *github.Repository) (push *configv1.Push, calls int, err error) {
	for _, name := range []string{buildfile.Name, buildfile.OtherName} {
		file, _, resp, err := client.Repositories.GetContents(ctx, in.GetOwner().GetLogin(), in.GetName(), name, nil)
		calls++
		switch {
		case resp != nil && resp.StatusCode == http.StatusNotFound:
			continue
		case err != nil:
			return nil, calls, githubFault(err)
		case file == nil: // a folder
			return nil, calls, nil
		}
		text, err := file.GetContent()
		if err != nil {
			return nil, calls, nil //nolint:nilerr // larger than a file can be
		}
		config, problems := buildfile.Parse([]byte(text))
		if len(problems) > 0 {
			return nil, calls, nil
		}
		return pushed(config), calls, nil
	}
	return nil, calls, nil
}

// pushed are the refs that a file has something for, to build or to deploy; nil for
// none.
func pushed(config *configv1.BuildConfig) *configv1.Push {
	all := &configv1.Push{Branches: slices.Clone(config.GetPush().GetBranches()), Tags: slices.Clone(config.GetPush().GetTags())}
	for _, e := range config.GetEnvironments() {
		all.Branches, all.Tags = append(all.Branches, e.GetBranches()...), append(all.Tags, e.GetTags()...)
	}
	if len(all.GetBranches())+len(all.GetTags()) == 0 {
		return nil
	}
	return all
}

// namedRefs are the branches and tags that a file names.
func namedRefs(ctx context.Context, client *github.Client, in *github.Repository, push *configv1.Push) (refs []*configv1.PushedRef, calls int, err error) {
	owner, name := in.GetOwner().GetLogin(), in.GetName()
	take := func(prefix, short, sha string, patterns []string) {
		if slices.ContainsFunc(patterns, func(pattern string) bool { return doublestar.MatchUnvalidated(pattern, short) }) && len(refs) < maxRefs {
			refs = append(refs, &configv1.PushedRef{Ref: prefix + short, Sha: sha})
		}
	}
	for page := 1; page != 0 && len(push.GetBranches()) > 0; {
		branches, resp, err := client.Repositories.ListBranches(ctx, owner, name, &github.BranchListOptions{ListOptions: github.ListOptions{Page: page, PerPage: 100}})
		calls++
		if err != nil {
			return nil, calls, githubFault(err)
		}
		for _, b := range branches {
			take("refs/heads/", b.GetName(), b.GetCommit().GetSHA(), push.GetBranches())
		}
		page = resp.NextPage
	}
	for page := 1; page != 0 && len(push.GetTags()) > 0; {
		tags, resp, err := client.Repositories.ListTags(ctx, owner, name, &github.ListOptions{Page: page, PerPage: 100})
		calls++
		if err != nil {
			return nil, calls, githubFault(err)
		}
		for _, t := range tags {
			take("refs/tags/", t.GetName(), t.GetCommit().GetSHA(), push.GetTags())
		}
		page = resp.NextPage
	}
	return refs, calls, nil
}
