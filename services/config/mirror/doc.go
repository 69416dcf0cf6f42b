// Package mirror keeps a bare copy of each repository, made and read by the git
// program, and writes from it what a build checks out.
//
// A copy begins with one commit and nothing before it; it gets all of its history
// once somebody asks for some. What is fetched is checked as git checks it (fsck),
// no hook, filter or protocol but HTTP is ever used, and the token of a fetch is on
// no command line and in no file.
//
// A copy that is broken is made anew. One lock a repository, held by each git that
// works on it, tells processes apart, also from the git of a Forge that was killed:
// fetches alone, checkouts side by side.
package mirror
