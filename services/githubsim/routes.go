package githubsim

// An access is what a route asks of its caller.
type access struct {
	who        who
	permission string // of an installation's token, for an installation's route
	level      string
}

type who int

const (
	anyone who = iota
	theApp
	anInstallation
)

func open() access                    { return access{who: anyone} }
func app() access                     { return access{who: theApp} }
func reads(permission string) access  { return access{anInstallation, permission, "read"} }
func writes(permission string) access { return access{anInstallation, permission, "write"} }

// A route is one method of the REST API.
type route struct {
	pattern string
	access  access
	handle  func(*call) *response
	docs    string // the page that errors point to, under https://docs.github.com/rest
}

// routes is all that this GitHub answers. A ref may hold slashes, see oneSegmentRefs.
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

		{"GET /rate_limit", open(), s.getRateLimit, "rate-limit/rate-limit#get-rate-limit-status-for-the-authenticated-user"},
		{"GET /meta", open(), s.getMeta, "meta/meta#get-github-meta-information"},
		{"/", open(), s.elsewhere, ""},
	}
}
