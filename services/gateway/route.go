package gateway

import (
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// self is the gateway as the receiver of what goes to no room.
const self = "gateway"

// route says who receives a kind of event, and how its payload is understood.
type route struct {
	receivers []string
	decode    func(payload []byte) (*eventv1.Event, error)
}

// routes has every kind of event that somebody acts on.
var routes = map[string]route{
	"pull_request":              {[]string{"scheduler"}, decodePullRequest},
	"push":                      {[]string{"config", "scheduler"}, decodePush},
	"release":                   {[]string{"scheduler"}, decodeRelease},
	"merge_group":               {[]string{"scheduler"}, decodeMergeGroup},
	"check_run":                 {[]string{"scheduler"}, decodeCheckRun},
	"check_suite":               {[]string{"scheduler"}, decodeCheckSuite},
	"issue_comment":             {[]string{"scheduler"}, decodeIssueComment},
	"installation":              {[]string{"config", "scheduler", "reporter"}, decodeInstallation},
	"installation_repositories": {[]string{"config"}, decodeInstallationRepositories},
	"repository":                {[]string{"config", "reporter"}, decodeRepository},
	"ping":                      {[]string{self}, decodePing},
}

// routeOf is the route of any kind of event: one without receivers is decided by
// the gateway itself.
func routeOf(event string) route {
	if r, ok := routes[event]; ok {
		return r
	}
	return route{[]string{self}, decodeOther}
}

// receivers are all that stand in routes.
func receivers() []string {
	var all []string
	for _, r := range routes {
		all = append(all, r.receivers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
