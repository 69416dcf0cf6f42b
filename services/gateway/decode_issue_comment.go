package gateway

import (
	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodeIssueComment reads https://docs.github.com/webhooks/webhook-events-and-payloads#issue_comment
func decodeIssueComment(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.IssueCommentEvent](payload)
	if err != nil {
		return nil, err
	}
	issue, comment := p.GetIssue(), p.GetComment()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"issue", issue.GetNumber() > 0},
		need{"comment", comment.GetID() != 0},
		need{"comment.user", comment.GetUser().GetLogin() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_IssueComment{IssueComment: &eventv1.IssueCommentEvent{
		Number:            number(issue.GetNumber()),
		OnPullRequest:     issue.IsPullRequest(),
		CommentId:         comment.GetID(),
		Body:              comment.GetBody(),
		Author:            account(comment.User),
		AuthorAssociation: comment.GetAuthorAssociation(),
		CreateTime:        timestamp(comment.CreatedAt),
		Open:              issue.GetState() == "open",
	}}
	return e, nil
}
