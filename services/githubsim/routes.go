package githubsim

import (
	"net/http"
	"slices"
	"strings"
)

// An access is what a route requires of its caller.
type access struct {
	who         who
	permissions []string // of an installation's token; one of them is enough
	level       string
}

// allowed reports whether a token's permissions are enough.
func (a access) allowed(granted map[string]string) bool {
	return slices.ContainsFunc(a.permissions, func(permission string) bool { return allows(granted, permission, a.level) })
}

// text is how GitHub writes it in X-Accepted-GitHub-Permissions.
func (a access) text() string { return strings.Join(a.permissions, "="+a.level+"; ") + "=" + a.level }

type who int

const (
	anyone who = iota
	theApp
	anInstallation
	gitClient
	aPerson // with a token of their own
	browser // or who asks the pages, not the API
)

func anybody() access                     { return access{who: anyone} }
func asApp() access                       { return access{who: theApp} }
func reads(permissions ...string) access  { return access{anInstallation, permissions, "read"} }
func writes(permissions ...string) access { return access{anInstallation, permissions, "write"} }

func asPerson() access { return access{who: aPerson} }

// personOr is for persons, and for installations that have the permission.
func personOr(permission string) access { return access{aPerson, []string{permission}, "read"} }
func asBrowser() access                 { return access{who: browser} }

func clones() access { return access{gitClient, []string{"contents"}, "read"} }

// overGit reports whether git itself calls, not a client of the API.
func (a access) overGit() bool { return a.who == gitClient }

// A route is one method of the REST API, or one address that git asks.
type route struct {
	pattern string
	access  access
	handle  func(*call) *response
	docs    string // the page that errors point to, under https://docs.github.com/rest
}

// changes reports whether the route does more than read.
func (r route) changes() bool {
	method, _, _ := strings.Cut(r.pattern, " ")
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch || method == http.MethodDelete
}

// The REST API by what a call is about. Each handler has the lock.
type (
	appAPI   struct{ *changes } // the App, its installations and its deliveries
	codeAPI  struct{ *changes } // repositories and what is in them
	pullAPI  struct{ *changes } // pull requests and their comments
	checkAPI struct{ *changes } // check runs, statuses, deployments
	// userAPI, in a file of its own, is what is asked as a person.
)

// routes returns all routes that this GitHub has. A ref may hold slashes, see routed.
func (s *front) routes() []route {
	apps, code, pulls, checks := &appAPI{s.changes}, &codeAPI{s.changes}, &pullAPI{s.changes}, &checkAPI{s.changes}
	git, users, web := &gitAPI{s.changes}, &userAPI{s.changes}, newOAuthWeb(s.changes)
	made := newRegistrations(s.changes)
	return []route{
		{"GET /app", asApp(), apps.getApp, "apps/apps#get-the-authenticated-app"},
		{"GET /app/installations", asApp(), apps.listInstallations, "apps/apps#list-installations-for-the-authenticated-app"},
		{"GET /app/installations/{id}", asApp(), apps.getInstallation, "apps/apps#get-an-installation-for-the-authenticated-app"},
		{"POST /app/installations/{id}/access_tokens", asApp(), apps.createToken, "apps/apps#create-an-installation-access-token-for-an-app"},
		{"GET /app/hook/config", asApp(), apps.getHookConfig, "apps/webhooks#get-a-webhook-configuration-for-an-app"},
		{"PATCH /app/hook/config", asApp(), apps.updateHookConfig, "apps/webhooks#update-a-webhook-configuration-for-an-app"},
		{"GET /app/hook/deliveries", asApp(), apps.listDeliveries, "apps/webhooks#list-deliveries-for-an-app-webhook"},
		{"GET /app/hook/deliveries/{id}", asApp(), apps.getDelivery, "apps/webhooks#get-a-delivery-for-an-app-webhook"},
		{"POST /app/hook/deliveries/{id}/attempts", asApp(), apps.redeliver, "apps/webhooks#redeliver-a-delivery-for-an-app-webhook"},
		{"GET /orgs/{org}/installation", asApp(), apps.getOrgInstallation, "apps/apps#get-an-organization-installation-for-the-authenticated-app"},
		{"GET /users/{user}/installation", asApp(), apps.getUserInstallation, "apps/apps#get-a-user-installation-for-the-authenticated-app"},
		{"GET /repos/{owner}/{repo}/installation", asApp(), apps.getRepositoryInstallation, "apps/apps#get-a-repository-installation-for-the-authenticated-app"},
		{"GET /installation/repositories", reads("metadata"), apps.listInstallationRepositories, "apps/installations#list-repositories-accessible-to-the-app-installation"},

		{"GET /repos/{owner}/{repo}", reads("metadata"), code.getRepository, "repos/repos#get-a-repository"},
		{"GET /repositories/{repository_id}", reads("metadata"), code.getRepository, "repos/repos#get-a-repository"},
		{"GET /repos/{owner}/{repo}/branches", reads("contents"), code.listBranches, "branches/branches#list-branches"},
		{"GET /repos/{owner}/{repo}/branches/{branch}", reads("contents"), code.getBranch, "branches/branches#get-a-branch"},
		{"GET /repos/{owner}/{repo}/tags", reads("contents"), code.listTags, "repos/repos#list-repository-tags"},
		{"GET /repos/{owner}/{repo}/git/ref/{ref...}", reads("contents"), code.getRef, "git/refs#get-a-reference"},
		{"GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", reads("contents"), code.matchRefs, "git/refs#list-matching-references"},
		{"GET /repos/{owner}/{repo}/git/tags/{sha}", reads("contents"), code.getTag, "git/tags#get-a-tag"},
		{"GET /repos/{owner}/{repo}/git/trees/{sha...}", reads("contents"), code.getTree, "git/trees#get-a-tree"},
		{"GET /repos/{owner}/{repo}/contents", reads("contents"), code.getContents, "repos/contents#get-repository-content"},
		{"GET /repos/{owner}/{repo}/contents/{path...}", reads("contents"), code.getContents, "repos/contents#get-repository-content"},
		{"GET /repos/{owner}/{repo}/tarball", reads("contents"), code.getTarball, "repos/contents#download-a-repository-archive-tar"},
		{"GET /repos/{owner}/{repo}/tarball/{ref...}", reads("contents"), code.getTarball, "repos/contents#download-a-repository-archive-tar"},
		{"GET /codeload/{owner}/{repo}/legacy.tar.gz/{sha}", anybody(), code.download(code.tarball), ""},
		{"GET /raw/{owner}/{repo}/{sha}/{path...}", anybody(), code.download(code.rawFile), ""},

		{"GET /repos/{owner}/{repo}/commits/{ref}", reads("contents"), code.getCommit, "commits/commits#get-a-commit"},
		{"GET /repos/{owner}/{repo}/compare/{basehead}", reads("contents"), code.compare, "commits/commits#compare-two-commits"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/status", reads("statuses"), checks.getCombinedStatus, "commits/statuses#get-the-combined-status-for-a-specific-reference"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/statuses", reads("statuses"), checks.listStatuses, "commits/statuses#list-commit-statuses-for-a-reference"},
		{"POST /repos/{owner}/{repo}/statuses/{sha}", writes("statuses"), checks.createStatus, "commits/statuses#create-a-commit-status"},

		{"GET /repos/{owner}/{repo}/pulls", reads("pull_requests"), pulls.listPulls, "pulls/pulls#list-pull-requests"},
		{"POST /repos/{owner}/{repo}/pulls", writes("pull_requests"), pulls.createPull, "pulls/pulls#create-a-pull-request"},
		{"GET /repos/{owner}/{repo}/pulls/{number}", reads("pull_requests"), pulls.getPull, "pulls/pulls#get-a-pull-request"},
		{"PATCH /repos/{owner}/{repo}/pulls/{number}", writes("pull_requests"), pulls.updatePull, "pulls/pulls#update-a-pull-request"},
		{"GET /repos/{owner}/{repo}/pulls/{number}/files", reads("pull_requests"), pulls.listPullFiles, "pulls/pulls#list-pull-requests-files"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/pulls", reads("pull_requests"), pulls.listCommitPulls, "commits/commits#list-pull-requests-associated-with-a-commit"},
		{"GET /repos/{owner}/{repo}/collaborators/{user}/permission", reads("metadata"), code.getPermission, "collaborators/collaborators#get-repository-permissions-for-a-user"},

		{"GET /repos/{owner}/{repo}/issues/{number}/{list}", reads("issues", "pull_requests"), pulls.listComments, "issues/comments#list-issue-comments"},
		{"POST /repos/{owner}/{repo}/issues/{number}/comments", writes("issues", "pull_requests"), pulls.createComment, "issues/comments#create-an-issue-comment"},
		{"GET /repos/{owner}/{repo}/issues/comments/{id}", reads("issues", "pull_requests"), pulls.getComment, "issues/comments#get-an-issue-comment"},
		{"PATCH /repos/{owner}/{repo}/issues/comments/{id}", writes("issues", "pull_requests"), pulls.updateComment, "issues/comments#update-an-issue-comment"},
		{"GET /repos/{owner}/{repo}/issues/comments/{id}/reactions", reads("issues", "pull_requests"), pulls.listReactions, "reactions/reactions#list-reactions-for-an-issue-comment"},
		{"POST /repos/{owner}/{repo}/issues/comments/{id}/reactions", writes("issues", "pull_requests"), pulls.createReaction, "reactions/reactions#create-reaction-for-an-issue-comment"},

		{"POST /repos/{owner}/{repo}/check-runs", writes("checks"), checks.createCheckRun, "checks/runs#create-a-check-run"},
		{"GET /repos/{owner}/{repo}/check-runs/{id}", reads("checks"), checks.getCheckRun, "checks/runs#get-a-check-run"},
		{"PATCH /repos/{owner}/{repo}/check-runs/{id}", writes("checks"), checks.updateCheckRun, "checks/runs#update-a-check-run"},
		{"GET /repos/{owner}/{repo}/check-runs/{id}/annotations", reads("checks"), checks.listAnnotations, "checks/runs#list-check-run-annotations"},
		{"POST /repos/{owner}/{repo}/check-runs/{id}/rerequest", writes("checks"), checks.rerequestRun, "checks/runs#rerequest-a-check-run"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/check-runs", reads("checks"), checks.listRefRuns, "checks/runs#list-check-runs-for-a-git-reference"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/check-suites", reads("checks"), checks.listSuites, "checks/suites#list-check-suites-for-a-git-reference"},
		{"GET /repos/{owner}/{repo}/check-suites/{id}", reads("checks"), checks.getSuite, "checks/suites#get-a-check-suite"},
		{"GET /repos/{owner}/{repo}/check-suites/{id}/check-runs", reads("checks"), checks.listSuiteRuns, "checks/runs#list-check-runs-in-a-check-suite"},
		{"POST /repos/{owner}/{repo}/check-suites/{id}/rerequest", writes("checks"), checks.rerequestSuite, "checks/suites#rerequest-a-check-suite"},

		{"GET /repos/{owner}/{repo}/deployments", reads("deployments"), checks.listDeployments, "deployments/deployments#list-deployments"},
		{"POST /repos/{owner}/{repo}/deployments", writes("deployments"), checks.createDeployment, "deployments/deployments#create-a-deployment"},
		{"GET /repos/{owner}/{repo}/deployments/{id}", reads("deployments"), checks.getDeployment, "deployments/deployments#get-a-deployment"},
		{"GET /repos/{owner}/{repo}/deployments/{id}/statuses", reads("deployments"), checks.listDeploymentStatuses, "deployments/statuses#list-deployment-statuses"},
		{"POST /repos/{owner}/{repo}/deployments/{id}/statuses", writes("deployments"), checks.createDeploymentStatus, "deployments/statuses#create-a-deployment-status"},

		{"POST /settings/apps/new", asBrowser(), made.post, ""},
		{"POST /organizations/{org}/settings/apps/new", asBrowser(), made.post, ""},
		{"POST /app-manifests/{code}/conversions", anybody(), made.convert, "apps/apps#create-a-github-app-from-a-manifest"},

		{"GET /user", asPerson(), users.getUser, "users/users#get-the-authenticated-user"},
		{"GET /user/installations", asPerson(), users.listInstallations, "apps/installations#list-app-installations-accessible-to-the-user-access-token"},
		{"GET /user/installations/{id}/repositories", asPerson(), users.listRepositories, "apps/installations#list-repositories-accessible-to-the-user-access-token"},
		{"GET /orgs/{org}/teams/{team}/memberships/{user}", personOr("members"), users.getMembership, "teams/members#get-team-membership-for-a-user"},
		{"DELETE /applications/{client}/token", asBrowser(), users.revoke(false), "apps/oauth-applications#delete-an-app-token"},
		{"DELETE /applications/{client}/grant", asBrowser(), users.revoke(true), "apps/oauth-applications#delete-an-app-authorization"},
		{"GET /login/oauth/authorize", asBrowser(), web.askLeave, ""},
		{"POST /login/oauth/authorize", asBrowser(), web.giveLeave, ""},
		{"POST /login/oauth/access_token", asBrowser(), web.giveToken, ""},
		{"POST /login/device/code", asBrowser(), web.startDevice, ""},
		{"GET /login/device", asBrowser(), web.askDeviceCode, ""},
		{"POST /login/device", asBrowser(), web.enterCode, ""},

		{"GET /{owner}/{repo}/info/refs", clones(), git.infoRefs, ""},
		{"POST /{owner}/{repo}/git-upload-pack", clones(), git.uploadPack, ""},
		{"POST /{owner}/{repo}/info/lfs/objects/batch", clones(), git.lfsBatch, ""},
		{"GET /lfs/{owner}/{repo}/objects/{oid}", anybody(), git.lfsDownload, ""},

		{"GET /rate_limit", anybody(), apps.getRateLimit, "rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user"},
		{"GET /meta", anybody(), apps.getMeta, "meta/meta#get-github-meta-information"},
		{"/", anybody(), s.redirectToPage, ""},
	}
}
