// Package token keeps tokens that are bound to a repository. A token is told once and kept
// as a hash; what it opens is what somebody may ask for by hand in its repository, and
// nothing besides, whatever that is called by then.
package token
