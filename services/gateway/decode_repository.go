package gateway

import (
	"cmp"
	"fmt"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodeRepository reads https://docs.github.com/webhooks/webhook-events-and-payloads#repository
func decodeRepository(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.RepositoryEvent](payload)
	if err != nil {
		return nil, err
	}
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	if err := require(need{"action", p.GetAction() != ""}, shared.inRepository()); err != nil {
		return nil, err
	}
	if err := alone(payload); err != nil {
		return nil, err
	}
	owner := p.GetChanges().GetOwner().GetOwnerInfo()
	e := shared.event()
	e.Payload = &eventv1.Event_RepositoryChanged{RepositoryChanged: &eventv1.RepositoryEvent{
		PreviousName:  p.GetChanges().GetRepo().GetName().GetFrom(),
		PreviousOwner: cmp.Or(owner.GetUser().GetLogin(), owner.GetOrg().GetLogin()),
	}}
	return e, nil
}

// subjects are what other kinds of event are about.
var subjects = []string{
	"pull_request", "issue", "comment", "review", "check_run", "check_suite", "merge_group", "release", "label", "milestone",
	"deployment", "deployment_status", "workflow_job", "workflow_run", "forkee", "member", "team", "hook", "rule", "key", "alert",
	"discussion", "ref", "sha", "pages", "repositories_added", "starred_at",
}

// alone refuses a payload that is about something else. Repository and
// installation stand in payloads of most kinds, so their presence says little,
// and the deletion of a comment must not pass for that of the repository.
func alone(payload []byte) error {
	keys, err := parse[map[string]ignored](payload)
	if err != nil {
		return err
	}
	for _, subject := range subjects {
		if _, there := (*keys)[subject]; there {
			return fmt.Errorf("%s in the payload, which belongs to another kind of event", subject)
		}
	}
	return nil
}

// ignored is a value that is not looked at.
type ignored struct{}

// UnmarshalJSON does nothing.
func (*ignored) UnmarshalJSON([]byte) error { return nil }
