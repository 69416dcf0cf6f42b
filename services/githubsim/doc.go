// Package githubsim is a GitHub small enough for a laptop: one App, its installations, and repositories held in memory.
//
// It answers the part of the REST API that an App of a build service needs, as GitHub's public description says it does
// (paths, status codes, bodies, errors, pages, permissions, redirects of what has moved), and sends signed webhooks when
// something happens. What it does not know answers 404 and is recorded like every other call, so a test sees what was
// missed. Tokens, permissions and their errors are GitHub's own: a client that works here by luck is a bug in this package.
//
// Repositories are cloned and fetched by git itself, at /{owner}/{repo}.git, with an installation's token as the password.
// Git's own upload-pack answers, from a temporary folder that has what reads show at that time and is gone with Close; so
// every commit that ever was is found by its sha, as at GitHub. A program git must be there. Files of Git LFS are downloaded.
// Pushes by git are refused, as of an App that may not write; SetRef pushes by force.
//
// A repository may be one that git made: Repository.GitDir is served from where it lies, however large. What no git would
// make, such as a tree that leaves its folder, comes in by AddObject and Commit.Tree.
//
// It behaves well unless asked not to. Misbehaviour spoils calls by chance or by count: slow, refused, cut off, hanging,
// before GitHub did what it was asked or after. Limits refuses what is too much or too fast, as GitHub publishes it, and
// LeastTime says how soon it could have been done at all; to watch hours of limits within a minute, set their Speed, or run
// everything in a testing/synctest bubble. DropDeliveries and LoseDeliveries keep webhooks from arriving, and SetLag has them arrive
// before the API shows what they tell.
//
// People sign in through the App, see OAuth: the pages that ask for their leave, the device flow, tokens that expire and
// are refreshed once, and what the API shows to a person.
//
// What it leaves out on purpose: pushes by git, users' tokens over git, rename detection, patches in lists of changed
// files, events that no App of this kind subscribes to, and the check suite that GitHub opens for every push unless an App
// declines it.
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
//	GET  /sim/misbehave                     what goes wrong at present
//	POST /sim/misbehave                     makes calls go wrong; form fields as in Misbehaviour: route, share, times,
//	                                        latency, jitter, status, retry_after, cut, half, cut_after,
//	                                        hang_after, carried_out
//	POST /sim/behave                        ends all of that
//	GET  /login/oauth/authorize             asks for leave to act for somebody, whose name is typed in
//	GET  /login/device                      asks for the code that a device shows
//
// Inside, each type keeps one promise: state is what this GitHub knows, changes what happens to it, front where calls arrive,
// appAPI, codeAPI, pullAPI and checkAPI the handlers of the REST API, gitAPI those of what git asks for, disk where git finds
// it, pages what people see. Sim and Controls are for tests.
package githubsim
