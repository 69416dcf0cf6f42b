package reporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/fault"
)

// tellPromotion has a pull request from head into base open, or finds that there
// is none to open. GitHub allows one per pair of branches.
func tellPromotion(ctx context.Context, client *github.Client, t target) (answer, error) {
	found, err := findPromotion(ctx, client, t)
	if err != nil || found != (answer{}) {
		return found, err
	}
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	if _, resp, err := client.Git.GetRef(ctx, owner, name, "heads/"+t.base); err != nil {
		if resp != nil && resp.StatusCode == http.StatusNotFound {
			return answer{note: "no branch " + t.base}, nil
		}
		return answer{}, err
	}
	opened, _, err := client.PullRequests.Create(ctx, owner, name, &github.NewPullRequest{
		Title: new("Promote " + t.head + " to " + t.base),
		Head:  &t.head, Base: &t.base, Body: new(promotionBody(t)),
	})
	if err == nil {
		return answer{pullRequest: number(opened), note: "opened"}, nil
	}
	switch why := refusal(err); {
	case strings.Contains(why, "already exists"):
		if found, err = findPromotion(ctx, client, t); err == nil && found == (answer{}) {
			err = fault.New(fault.Unavailable, "GitHub says that the pull request exists already, and does not list it yet")
		}
		return found, err
	case strings.Contains(why, "No commits between"):
		return answer{note: "nothing to promote"}, nil
	case strings.Contains(why, "head invalid"):
		return answer{note: "no branch " + t.head}, nil
	default:
		return answer{}, err
	}
}

func findPromotion(ctx context.Context, client *github.Client, t target) (answer, error) {
	owner := t.repository.GetOwner()
	open, _, err := client.PullRequests.List(ctx, owner, t.repository.GetName(), &github.PullRequestListOptions{
		State: "open", Head: owner + ":" + t.head, Base: t.base, ListOptions: github.ListOptions{PerPage: 1},
	})
	if err != nil || len(open) == 0 {
		return answer{}, err
	}
	return answer{pullRequest: number(open[0]), note: "found open"}, nil
}

func number(p *github.PullRequest) int32 { return int32(p.GetNumber()) } //nolint:gosec // counts from 1

func promotionBody(t target) string {
	return fmt.Sprintf("`%s` is at %s, which is ready for `%s`: %s\n\nMerging this deploys it.", t.head, t.sha, t.base, t.want.url)
}

// refusal is why GitHub finds a request invalid; "" for any other error.
// https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api#validation-failed
func refusal(err error) string {
	refused, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok || refused.Response.StatusCode != http.StatusUnprocessableEntity {
		return ""
	}
	said := []string{refused.Message}
	for _, detail := range refused.Errors {
		said = append(said, detail.Message, detail.Field+" "+detail.Code)
	}
	return strings.Join(said, "\n")
}
