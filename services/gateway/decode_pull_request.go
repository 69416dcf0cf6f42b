package gateway

import (
	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodePullRequest reads https://docs.github.com/webhooks/webhook-events-and-payloads#pull_request
//
// Reviews and their comments carry a pull request too, but no number beside it.
func decodePullRequest(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.PullRequestEvent](payload)
	if err != nil {
		return nil, err
	}
	pull := p.GetPullRequest()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"pull_request", pull.GetNumber() > 0},
		need{"number of the pull request", p.GetNumber() == pull.GetNumber()},
		need{"pull_request.head", pull.GetHead().GetRef() != "" && pull.GetHead().GetSHA() != ""},
		need{"pull_request.base", pull.GetBase().GetRef() != "" && pull.GetBase().GetSHA() != ""},
		need{"pull_request.updated_at", !pull.GetUpdatedAt().IsZero()},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_PullRequest{PullRequest: &eventv1.PullRequestEvent{
		PullRequest:     pullRequest(pull),
		Before:          p.GetBefore(),
		After:           p.GetAfter(),
		PreviousBaseRef: p.GetChanges().GetBase().GetRef().GetFrom(),
		Label:           p.GetLabel().GetName(),
	}}
	return e, nil
}

func pullRequest(p *github.PullRequest) *eventv1.PullRequest {
	pull := &eventv1.PullRequest{
		Number:            number(p.GetNumber()),
		Title:             p.GetTitle(),
		HtmlUrl:           p.GetHTMLURL(),
		Author:            account(p.User),
		AuthorAssociation: p.GetAuthorAssociation(),
		Head:              end(p.Head),
		Base:              end(p.Base),
		Open:              p.GetState() == "open",
		Draft:             p.GetDraft(),
		Merged:            p.GetMerged(),
		MergeCommitSha:    p.GetMergeCommitSHA(),
		MergedBy:          account(p.MergedBy),
		CommitCount:       number(p.GetCommits()),
		CreateTime:        timestamp(p.CreatedAt),
		UpdateTime:        timestamp(p.UpdatedAt),
		MergeTime:         timestamp(p.MergedAt),
		CloseTime:         timestamp(p.ClosedAt),
	}
	for _, label := range p.Labels {
		pull.Labels = append(pull.Labels, label.GetName())
	}
	return pull
}

func end(b *github.PullRequestBranch) *eventv1.PullRequestBranch {
	return &eventv1.PullRequestBranch{Ref: b.GetRef(), Sha: b.GetSHA(), Repository: repository(b.GetRepo())}
}
