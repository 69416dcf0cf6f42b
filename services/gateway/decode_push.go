package gateway

import (
	"cmp"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodePush reads https://docs.github.com/webhooks/webhook-events-and-payloads#push
func decodePush(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.PushEvent](payload)
	if err != nil {
		return nil, err
	}
	shared := common{p.Action, pushed(p.Repo), p.Sender, p.Installation}
	err = require(
		need{"ref", p.GetRef() != ""},
		need{"before", p.GetBefore() != ""},
		need{"after", p.GetAfter() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e, pushTime := shared.event(), p.GetRepo().GetPushedAt()
	e.Payload = &eventv1.Event_Push{Push: &eventv1.PushEvent{
		Ref:         p.GetRef(),
		Before:      p.GetBefore(),
		After:       p.GetAfter(),
		Created:     p.GetCreated(),
		Deleted:     p.GetDeleted(),
		Forced:      p.GetForced(),
		CommitCount: number(len(p.Commits)),
		HeadMessage: p.GetHeadCommit().GetMessage(),
		HeadTime:    timestamp(head(p).Timestamp),
		HeadSha:     p.GetHeadCommit().GetID(),
		PushTime:    timestamp(&pushTime),
		Pusher:      cmp.Or(p.GetPusher().GetLogin(), p.GetPusher().GetName()),
	}}
	return e, nil
}

// pushed is a repository in the older form that pushes show it in.
func pushed(r *github.PushEventRepository) *github.Repository {
	if r == nil {
		return nil
	}
	return &github.Repository{
		ID: r.ID, Owner: r.Owner, FullName: r.FullName, Name: r.Name, DefaultBranch: r.DefaultBranch,
		Private: r.Private, Fork: r.Fork, Archived: r.Archived,
	}
}

// head is the newest commit; a deletion has none.
func head(p *github.PushEvent) github.HeadCommit {
	if p.HeadCommit == nil {
		return github.HeadCommit{}
	}
	return *p.HeadCommit
}
