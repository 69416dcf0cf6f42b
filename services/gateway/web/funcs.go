package web

import (
	"html/template"
	"strconv"
	"strings"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// listFuncs are what templates of lists call.
func listFuncs(base string) template.FuncMap {
	return template.FuncMap{
		"add":  func(a, b int) int { return a + b },
		"fate": fate,
		"repository": func(b *schedulerv1.Build) string {
			return address(base+"/repositories", b.GetRepository().GetOwner(), b.GetRepository().GetName())
		},
		"delivery":      func(d *gatewayv1.Delivery) string { return address(base+"/deliveries", d.GetId()) },
		"deliveryState": func(d *gatewayv1.Delivery) string { return wording.Value(d.GetState()) },
		"environment": func(e *schedulerv1.Environment) string {
			owner, name, _ := strings.Cut(e.GetRepository(), "/")
			return address(base+"/environments", owner, name, e.GetName())
		},
		"jobHistory": func(b *schedulerv1.Build) string {
			q := query{path: address(base+"/repositories", b.GetRepository().GetOwner(), b.GetRepository().GetName())}
			return q.with("job", b.GetJob())
		},
		"listed":      listed,
		"entryAction": func(e *schedulerv1.AuditEntry) string { return wording.Value(e.GetAction()) },
		"entryBuild":  func(e *schedulerv1.AuditEntry) string { return entryBuild(base, e) },
		"entryFrom":   entryFrom,
	}
}

// listedBuild is a build of a list, with the addresses of the lists of what it shares with
// others.
type listedBuild struct {
	Build               *schedulerv1.Build
	Of                  string // whose page it is on; "": the list is of all repositories
	Pull, Branch, Actor string
}

func listed(b *schedulerv1.Build, on *buildList) listedBuild {
	shown := listedBuild{Build: b, Of: on.Repository, Actor: on.With("actor", b.GetActor())}
	own := on.Query
	if on.Repository == "" { // a branch and a pull request are a repository's
		own.values = map[string][]string{"repository": {wording.FullName(b.GetRepository())}}
	}
	if b.GetPullRequest() != 0 {
		shown.Pull = own.with("pull_request", strconv.Itoa(int(b.GetPullRequest())))
	}
	if b.GetBranch() != "" {
		shown.Branch = own.with("branch", b.GetBranch())
	}
	return shown
}
