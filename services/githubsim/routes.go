package githubsim

import (
	"net/http"
	"slices"
	"strings"
)

// An access is what a route asks of its caller.
type access struct {
	who         who
	permissions []string // of an installation's token, for an installation's route; one of them will do
	level       string
}

// allowed says whether a token's permissions will do.
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
)

func open() access                        { return access{who: anyone} }
func app() access                         { return access{who: theApp} }
func reads(permissions ...string) access  { return access{anInstallation, permissions, "read"} }
func writes(permissions ...string) access { return access{anInstallation, permissions, "write"} }

// A route is one method of the REST API.
type route struct {
	pattern string
	access  access
	handle  func(*call) *response
	docs    string // the page that errors point to, under https://docs.github.com/rest
}

// changes says whether the route does more than read.
func (r route) changes() bool {
	method, _, _ := strings.Cut(r.pattern, " ")
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch || method == http.MethodDelete
}

// routes is all that this GitHub answers. A ref may hold slashes, see routed.
func (s *Sim) routes() []route {
	return []route{
		{"GET /app", app(), s.getApp, "apps/apps#get-the-authenticated-app"},
		{"GET /app/installations", app(), s.listInstallations, "apps/apps#list-installations-for-the-authenticated-app"},
		{"GET /app/installations/{id}", app(), s.getInstallation, "apps/apps#get-an-installation-for-the-authenticated-app"},
		{"POST /app/installations/{id}/access_tokens", app(), s.createToken, "apps/apps#create-an-installation-access-token-for-an-app"},
		{"GET /app/hook/deliveries", app(), s.listDeliveries, "apps/webhooks#list-deliveries-for-an-app-webhook"},
		{"GET /app/hook/deliveries/{id}", app(), s.getDelivery, "apps/webhooks#get-a-delivery-for-an-app-webhook"},
		{"POST /app/hook/deliveries/{id}/attempts", app(), s.redeliver, "apps/webhooks#redeliver-a-delivery-for-an-app-webhook"},
		{"GET /orgs/{org}/installation", app(), s.getOrgInstallation, "apps/apps#get-an-organization-installation-for-the-authenticated-app"},
		{"GET /users/{user}/installation", app(), s.getUserInstallation, "apps/apps#get-a-user-installation-for-the-authenticated-app"},
		{"GET /repos/{owner}/{repo}/installation", app(), s.getRepositoryInstallation, "apps/apps#get-a-repository-installation-for-the-authenticated-app"},
		{"GET /installation/repositories", reads("metadata"), s.listInstallationRepositories, "apps/installations#list-repositories-accessible-to-the-app-installation"},

		{"GET /repos/{owner}/{repo}", reads("metadata"), s.getRepository, "repos/repos#get-a-repository"},
		{"GET /repositories/{repository_id}", reads("metadata"), s.getRepository, "repos/repos#get-a-repository"},
		{"GET /repos/{owner}/{repo}/branches", reads("contents"), s.listBranches, "branches/branches#list-branches"},
		{"GET /repos/{owner}/{repo}/branches/{branch}", reads("contents"), s.getBranch, "branches/branches#get-a-branch"},
		{"GET /repos/{owner}/{repo}/git/ref/{ref...}", reads("contents"), s.getRef, "git/refs#get-a-reference"},
		{"GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", reads("contents"), s.matchRefs, "git/refs#list-matching-references"},
		{"GET /repos/{owner}/{repo}/git/trees/{sha...}", reads("contents"), s.getTree, "git/trees#get-a-tree"},
		{"GET /repos/{owner}/{repo}/contents", reads("contents"), s.getContents, "repos/contents#get-repository-content"},
		{"GET /repos/{owner}/{repo}/contents/{path...}", reads("contents"), s.getContents, "repos/contents#get-repository-content"},
		{"GET /repos/{owner}/{repo}/tarball", reads("contents"), s.getTarball, "repos/contents#download-a-repository-archive-tar"},
		{"GET /repos/{owner}/{repo}/tarball/{ref...}", reads("contents"), s.getTarball, "repos/contents#download-a-repository-archive-tar"},
		{"GET /codeload/{owner}/{repo}/legacy.tar.gz/{sha}", open(), s.download(s.tarball), ""},
		{"GET /raw/{owner}/{repo}/{sha}/{path...}", open(), s.download(s.rawFile), ""},

		{"GET /repos/{owner}/{repo}/commits/{ref}", reads("contents"), s.getCommit, "commits/commits#get-a-commit"},
		{"GET /repos/{owner}/{repo}/compare/{basehead}", reads("contents"), s.compare, "commits/commits#compare-two-commits"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/status", reads("statuses"), s.getCombinedStatus, "commits/statuses#get-the-combined-status-for-a-specific-reference"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/statuses", reads("statuses"), s.listStatuses, "commits/statuses#list-commit-statuses-for-a-reference"},
		{"POST /repos/{owner}/{repo}/statuses/{sha}", writes("statuses"), s.createStatus, "commits/statuses#create-a-commit-status"},

		{"GET /repos/{owner}/{repo}/pulls", reads("pull_requests"), s.listPulls, "pulls/pulls#list-pull-requests"},
		{"POST /repos/{owner}/{repo}/pulls", writes("pull_requests"), s.createPull, "pulls/pulls#create-a-pull-request"},
		{"GET /repos/{owner}/{repo}/pulls/{number}", reads("pull_requests"), s.getPull, "pulls/pulls#get-a-pull-request"},
		{"PATCH /repos/{owner}/{repo}/pulls/{number}", writes("pull_requests"), s.updatePull, "pulls/pulls#update-a-pull-request"},
		{"GET /repos/{owner}/{repo}/pulls/{number}/files", reads("pull_requests"), s.listPullFiles, "pulls/pulls#list-pull-requests-files"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/pulls", reads("pull_requests"), s.listCommitPulls, "commits/commits#list-pull-requests-associated-with-a-commit"},
		{"GET /repos/{owner}/{repo}/collaborators/{user}/permission", reads("metadata"), s.getPermission, "collaborators/collaborators#get-repository-permissions-for-a-user"},

		{"GET /repos/{owner}/{repo}/issues/{number}/{list}", reads("issues", "pull_requests"), s.listComments, "issues/comments#list-issue-comments"},
		{"POST /repos/{owner}/{repo}/issues/{number}/comments", writes("issues", "pull_requests"), s.createComment, "issues/comments#create-an-issue-comment"},
		{"GET /repos/{owner}/{repo}/issues/comments/{id}", reads("issues", "pull_requests"), s.getComment, "issues/comments#get-an-issue-comment"},
		{"PATCH /repos/{owner}/{repo}/issues/comments/{id}", writes("issues", "pull_requests"), s.updateComment, "issues/comments#update-an-issue-comment"},
		{"GET /repos/{owner}/{repo}/issues/comments/{id}/reactions", reads("issues", "pull_requests"), s.listReactions, "reactions/reactions#list-reactions-for-an-issue-comment"},
		{"POST /repos/{owner}/{repo}/issues/comments/{id}/reactions", writes("issues", "pull_requests"), s.createReaction, "reactions/reactions#create-reaction-for-an-issue-comment"},

		{"POST /repos/{owner}/{repo}/check-runs", writes("checks"), s.createCheckRun, "checks/runs#create-a-check-run"},
		{"GET /repos/{owner}/{repo}/check-runs/{id}", reads("checks"), s.getCheckRun, "checks/runs#get-a-check-run"},
		{"PATCH /repos/{owner}/{repo}/check-runs/{id}", writes("checks"), s.updateCheckRun, "checks/runs#update-a-check-run"},
		{"GET /repos/{owner}/{repo}/check-runs/{id}/annotations", reads("checks"), s.listAnnotations, "checks/runs#list-check-run-annotations"},
		{"POST /repos/{owner}/{repo}/check-runs/{id}/rerequest", writes("checks"), s.rerequestRun, "checks/runs#rerequest-a-check-run"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/check-runs", reads("checks"), s.listRefRuns, "checks/runs#list-check-runs-for-a-git-reference"},
		{"GET /repos/{owner}/{repo}/commits/{ref}/check-suites", reads("checks"), s.listSuites, "checks/suites#list-check-suites-for-a-git-reference"},
		{"GET /repos/{owner}/{repo}/check-suites/{id}", reads("checks"), s.getSuite, "checks/suites#get-a-check-suite"},
		{"GET /repos/{owner}/{repo}/check-suites/{id}/check-runs", reads("checks"), s.listSuiteRuns, "checks/runs#list-check-runs-in-a-check-suite"},
		{"POST /repos/{owner}/{repo}/check-suites/{id}/rerequest", writes("checks"), s.rerequestSuite, "checks/suites#rerequest-a-check-suite"},

		{"GET /repos/{owner}/{repo}/deployments", reads("deployments"), s.listDeployments, "deployments/deployments#list-deployments"},
		{"POST /repos/{owner}/{repo}/deployments", writes("deployments"), s.createDeployment, "deployments/deployments#create-a-deployment"},
		{"GET /repos/{owner}/{repo}/deployments/{id}", reads("deployments"), s.getDeployment, "deployments/deployments#get-a-deployment"},
		{"GET /repos/{owner}/{repo}/deployments/{id}/statuses", reads("deployments"), s.listDeploymentStatuses, "deployments/statuses#list-deployment-statuses"},
		{"POST /repos/{owner}/{repo}/deployments/{id}/statuses", writes("deployments"), s.createDeploymentStatus, "deployments/statuses#create-a-deployment-status"},

		{"GET /rate_limit", open(), s.getRateLimit, "rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user"},
		{"GET /meta", open(), s.getMeta, "meta/meta#get-github-meta-information"},
		{"/", open(), s.elsewhere, ""},
	}
}
