package reporter

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// publishPromotion has a pull request from head into base open, or finds that there
// is none to open. GitHub allows one per pair of branches.
func publishPromotion(ctx context.Context, client *github.Client, t target) (receipt, error) {
	found, err := findPromotion(ctx, client, t)
	if err != nil || found != (receipt{}) {
		return found, err
	}
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	ahead, resp, err := client.Repositories.CompareCommits(ctx, owner, name, t.base, t.head, &github.ListOptions{PerPage: largestCompare})
	switch {
	case resp != nil && resp.StatusCode == http.StatusNotFound:
		return missingBranch(ctx, client, t)
	case err != nil:
		return receipt{}, err
	case ahead.GetTotalCommits() == 0, len(ahead.Commits) == 0:
		return receipt{note: "nothing to promote"}, nil
	}
	carried, err := carriedBy(ctx, client, t, ahead.Commits)
	if err != nil {
		return receipt{}, err
	}
	opened, _, err := client.PullRequests.Create(ctx, owner, name, &github.NewPullRequest{
		Title: new(cut("Promote "+t.head+" to "+t.base, maxTitle)),
		Head:  &t.head, Base: &t.base, Body: new(promotionBody(t, carried)),
	})
	if err == nil {
		return receipt{pullRequest: number(opened), note: "opened"}, nil
	}
	switch why, _ := refusal(err); {
	case strings.Contains(why, "already exists"):
		if found, err = findPromotion(ctx, client, t); err == nil && found == (receipt{}) {
			err = fault.New(fault.Unavailable, "GitHub says that the pull request exists already, and does not list it yet")
		}
		return found, err
	case strings.Contains(why, "No commits between"):
		return receipt{note: "nothing to promote"}, nil
	default:
		return receipt{}, err
	}
}

func findPromotion(ctx context.Context, client *github.Client, t target) (receipt, error) {
	owner := t.repository.GetOwner()
	open, _, err := client.PullRequests.List(ctx, owner, t.repository.GetName(), &github.PullRequestListOptions{
		State: "open", Head: owner + ":" + t.head, Base: t.base, ListOptions: github.ListOptions{PerPage: 1},
	})
	if err != nil || len(open) == 0 {
		return receipt{}, err
	}
	return receipt{pullRequest: number(open[0]), note: "found open"}, nil
}

func number(p *github.PullRequest) int32 { return int32(p.GetNumber()) } //nolint:gosec // counts from 1

// missingBranch says which of the two branches is not there.
func missingBranch(ctx context.Context, client *github.Client, t target) (receipt, error) {
	for _, name := range []string{t.base, t.head} {
		_, resp, err := client.Git.GetRef(ctx, t.repository.GetOwner(), t.repository.GetName(), "heads/"+name)
		switch {
		case resp != nil && resp.StatusCode == http.StatusNotFound:
			return receipt{note: "no branch " + name}, nil
		case err != nil:
			return receipt{}, err
		}
	}
	return receipt{}, fault.New(fault.Unavailable, "GitHub does not compare the branches, and has them both")
}

const (
	maxTitle       = 256 // characters of a pull request's title
	largestCompare = 250 // commits that GitHub shows at once
	largestList    = 100 // of anything else
	mostPages      = 5   // of pull requests that are looked through
	// listedPulls is how many pull requests the body of a promotion names.
	listedPulls = 100
)

// carriedBy are the pull requests whose merge is among the commits, which are
// oldest first; the latest changed come first. A pull request has changed when it
// was merged, so those that changed before the oldest commit need not be asked for.
func carriedBy(ctx context.Context, client *github.Client, t target, commits []*github.RepositoryCommit) ([]*github.PullRequest, error) {
	among := map[string]bool{}
	for _, c := range commits {
		among[c.GetSHA()] = true
	}
	oldest := commits[0].GetCommit().GetCommitter().GetDate()
	options := &github.PullRequestListOptions{
		State: "closed", Base: t.head, Sort: "updated", Direction: "desc", ListOptions: github.ListOptions{PerPage: largestList, Page: 1},
	}
	var carried []*github.PullRequest
	for options.Page > 0 && options.Page <= mostPages {
		closed, resp, err := client.PullRequests.List(ctx, t.repository.GetOwner(), t.repository.GetName(), options)
		if err != nil {
			return nil, err
		}
		for _, p := range closed {
			if p.MergedAt != nil && among[p.GetMergeCommitSHA()] {
				carried = append(carried, p)
			}
		}
		options.Page = resp.NextPage
		if len(closed) > 0 && closed[len(closed)-1].GetUpdatedAt().Before(oldest.Time) {
			break
		}
	}
	return carried, nil
}

func promotionBody(t target, carried []*github.PullRequest) string {
	var body strings.Builder
	fmt.Fprintf(&body, "`%s` is at %s, which is ready for `%s`: %s\n\nMerging this deploys it.\n", t.head, t.sha, t.base, t.desired.url)
	if t.plain {
		carried = nil
	}
	for i, p := range carried {
		if i == 0 {
			body.WriteString("\nIt carries:\n\n")
		}
		if i == listedPulls {
			fmt.Fprintf(&body, "- and %d more\n", len(carried)-i)
			break
		}
		fmt.Fprintf(&body, "- #%d %s\n", p.GetNumber(), markdown(p.GetTitle(), maxDescription))
	}
	return body.String()
}

// Promote stores that a pull request is to be open.
func (s *Service) Promote(ctx context.Context, req *reporterv1.PromoteRequest) (*reporterv1.PromoteResponse, error) {
	err := requireFields("promotion", req.GetRepository(), map[string]bool{
		"head": req.GetHead() == "", "base": req.GetBase() == "", "sha": req.GetSha() == "",
	})
	if err != nil {
		return nil, err
	}
	kind, repositoryID := reporterv1.Target_KIND_PROMOTION, req.GetRepository().GetId()
	err = s.store.change(ctx, targetID(kind, repositoryID, req.GetHead(), req.GetBase()), kind, repositoryID, func(t *target) {
		if req.GetSha() == t.sha {
			return
		}
		t.version++
		// What became of the last one does not matter: it may be merged by now.
		t.desired, t.published = display{state: "open", url: req.GetBuildUrl()}, display{}
		t.repository, t.installationID = req.GetRepository(), req.GetInstallationId()
		t.sha, t.context, t.head, t.base = req.GetSha(), req.GetHead()+" → "+req.GetBase(), req.GetHead(), req.GetBase()
		t.traceparent = telemetry.Traceparent(ctx)
		t.schedule(s.deps.Now())
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &reporterv1.PromoteResponse{}, nil
}
