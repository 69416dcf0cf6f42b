// Package config knows what a repository wants built, at a commit, and is the
// only room that holds the App's private key. Others get from it a repository's
// .forge.yml, the source of a commit, and tokens narrowed to one repository and
// to what their room may do there.
//
// It keeps nothing that GitHub could not tell it again. Installations are read
// from GitHub: all at start and every hour, one whenever an event speaks of it.
// An event is a reason to look, never the truth: events come twice and in any
// order. What belongs to a commit is cached by repository id and sha, which
// cannot change.
package config
