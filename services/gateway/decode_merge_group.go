package gateway

import (
	"strings"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// mergeGroup adds what go-github does not know.
type mergeGroup struct {
	github.MergeGroupEvent

	Reason string `json:"reason"`
}

// decodeMergeGroup reads https://docs.github.com/webhooks/webhook-events-and-payloads#merge_group
func decodeMergeGroup(payload []byte) (*eventv1.Event, error) {
	p, err := parse[mergeGroup](payload)
	if err != nil {
		return nil, err
	}
	group := p.GetMergeGroup()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"merge_group", group != nil},
		need{"merge_group.head_sha", group.GetHeadSHA() != ""},
		need{"merge_group.base_ref", group.GetBaseRef() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_MergeGroup{MergeGroup: &eventv1.MergeGroupEvent{
		HeadSha:     group.GetHeadSHA(),
		HeadRef:     group.GetHeadRef(),
		BaseSha:     group.GetBaseSHA(),
		BaseRef:     strings.TrimPrefix(group.GetBaseRef(), "refs/heads/"),
		HeadMessage: group.GetHeadCommit().GetMessage(),
		Reason:      p.Reason,
	}}
	return e, nil
}
