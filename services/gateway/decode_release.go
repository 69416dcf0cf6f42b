package gateway

import (
	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodeRelease reads https://docs.github.com/webhooks/webhook-events-and-payloads#release
func decodeRelease(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.ReleaseEvent](payload)
	if err != nil {
		return nil, err
	}
	release := p.GetRelease()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"release", release != nil},
		need{"release.tag_name", release.GetTagName() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_Release{Release: &eventv1.ReleaseEvent{
		ReleaseId: release.GetID(), Tag: release.GetTagName(), Name: release.GetName(), Draft: release.GetDraft(), Prerelease: release.GetPrerelease(),
	}}
	return e, nil
}
