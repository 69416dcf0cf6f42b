package config

import (
	"strconv"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// grant says what a token is for.
type grant struct {
	installation int64 // 0 where the caller does not know
	repository   int64 // 0 where the caller does not know
	owner, name  string
	room         string
}

func grantFor(repository *eventv1.Repository, installation int64, room string) (grant, error) {
	g := grant{
		installation: installation, repository: repository.GetId(),
		owner: repository.GetOwner(), name: repository.GetName(), room: room,
	}
	if g.owner == "" || g.name == "" {
		return g, fault.New(fault.Invalid, "the repository lacks its owner or name")
	}
	return g, nil
}

func (g grant) fullName() string { return g.owner + "/" + g.name }

// repositoryKey tells repositories apart: by the id where it is known, since that
// survives a rename, else by the name.
func (g grant) repositoryKey() string {
	if g.repository != 0 {
		return strconv.FormatInt(g.repository, 10)
	}
	return strings.ToLower(g.fullName())
}

// mayHold is the permissions that a token of a room has, as far as the
// installation grants them; nil for a room that gets no token.
func mayHold(room string) map[string]string {
	return map[string]map[string]string{
		roomConfig: {"metadata": "read", "contents": "read", "pull_requests": "read"},
		teamReader: {"members": "read"},
		"reporter": {
			"metadata": "read", "contents": "read",
			"statuses": "write", "checks": "write", "deployments": "write", "pull_requests": "write",
		},
	}[room]
}

const (
	roomConfig = "config"
	// teamReader is no room: config's own tokens for the one question that is about an
	// organization.
	teamReader = "team reader"
)
