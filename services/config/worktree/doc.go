// Package worktree serves config's contract from a git working tree of this machine
// instead of GitHub: what is there now is a commit that nobody has made, with the
// changes that are not committed and the files that git does not know and does not
// ignore.
//
// Nothing in the repository is changed: that commit, with the index and the objects
// that it takes, lies in a copy of its own, which reads the repository's objects where
// they are. Only the repository's own settings and filters are used, as git add uses
// them.
package worktree
