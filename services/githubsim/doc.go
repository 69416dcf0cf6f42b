// Package githubsim is a GitHub small enough for a laptop: one App, its installations, and repositories held in memory.
//
// It answers the part of the REST API that an App of a build service needs, as GitHub's public description says it does
// (paths, status codes, bodies, errors, pages, permissions), and sends signed webhooks when something happens. What it
// does not know answers 404 and is recorded like every other call, so a test sees what was missed. Tokens, permissions
// and their errors are GitHub's own: a client that works here by luck is a bug in this package.
//
// What it leaves out on purpose: packs and the git protocol, users' tokens, rename detection, and patches in lists of
// changed files. Requests are counted in X-RateLimit-* and never refused for it.
//
// For people, beside the API:
//
//	GET  /sim                               this list, and the repositories
//	GET  /sim/{owner}/{repo}                its pull requests and their statuses, with buttons
//	POST /sim/{owner}/{repo}/pulls          opens a pull request; form fields title, file, content, base are optional
//	POST /sim/{owner}/{repo}/pulls/{number}/push    adds a commit; form fields file, content are optional
//	POST /sim/{owner}/{repo}/pulls/{number}/merge
//	POST /sim/{owner}/{repo}/pulls/{number}/close
//	POST /sim/{owner}/{repo}/pulls/{number}/reopen
package githubsim
