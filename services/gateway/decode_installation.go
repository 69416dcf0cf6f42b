package gateway

import (
	"cmp"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// installation adds the permissions as a map, so that one go-github has no field
// for is not lost, and whether the lists of a change of repositories are there.
type installation struct {
	github.InstallationEvent

	Added        []*github.Repository `json:"repositories_added"`
	Removed      []*github.Repository `json:"repositories_removed"`
	Installation *struct {
		github.Installation

		Permissions map[string]string `json:"permissions"`
	} `json:"installation"`
	RepositorySelection string `json:"repository_selection"`
}

func parseInstallation(payload []byte) (*installation, common, error) {
	p, err := parse[installation](payload)
	if err != nil {
		return nil, common{}, err
	}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"installation", p.Installation != nil && p.Installation.GetID() != 0},
		need{"installation.account", p.Installation != nil && p.Installation.GetAccount().GetLogin() != ""},
	)
	if err != nil {
		return nil, common{}, err
	}
	return p, common{Action: p.Action, Sender: p.Sender, Installation: &p.Installation.Installation}, nil
}

// decodeInstallation reads https://docs.github.com/webhooks/webhook-events-and-payloads#installation
func decodeInstallation(payload []byte) (*eventv1.Event, error) {
	p, shared, err := parseInstallation(payload)
	if err != nil {
		return nil, err
	}
	if err := alone(payload); err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_Installation{Installation: &eventv1.InstallationEvent{
		Account:             account(p.Installation.Account),
		RepositorySelection: p.Installation.GetRepositorySelection(),
		Permissions:         p.Installation.Permissions,
		Repositories:        repositories(p.Repositories),
		SuspendTime:         timestamp(p.Installation.SuspendedAt),
	}}
	return e, nil
}

// decodeInstallationRepositories reads https://docs.github.com/webhooks/webhook-events-and-payloads#installation_repositories
func decodeInstallationRepositories(payload []byte) (*eventv1.Event, error) {
	p, shared, err := parseInstallation(payload)
	if err != nil {
		return nil, err
	}
	if err := require(need{"list of repositories", p.Added != nil && p.Removed != nil}); err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_InstallationRepositories{InstallationRepositories: &eventv1.InstallationRepositoriesEvent{
		Account:             account(p.Installation.Account),
		RepositorySelection: cmp.Or(p.RepositorySelection, p.Installation.GetRepositorySelection()),
		Added:               repositories(p.Added),
		Removed:             repositories(p.Removed),
	}}
	return e, nil
}
