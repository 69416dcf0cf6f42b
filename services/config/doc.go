// Package config knows what a repository wants built at a commit, and is the
// only room that holds the App's private key. The other rooms get from it a
// repository's .forge.yml, the source of a commit, and tokens narrowed to one
// repository and to what their room may do there.
//
// Decisions that bind this room:
//
//   - It keeps nothing that GitHub could not tell it again: whatever it caches may
//     be lost.
//   - Installations are read from GitHub: all at start and every hour, one
//     whenever an event names it. An event is a reason to ask, never the truth:
//     events come twice and in any order.
//   - What belongs to a commit is cached by the repository's id and the sha: a
//     commit cannot change, and the id survives a rename.
//   - What GitHub refuses, and any trouble with GitHub, is never cached.
//   - GitHub's API is later than its webhooks. What an event has told of within five
//     minutes is not gone where GitHub does not find it: that is Unavailable, so that
//     the caller's own retries carry it on, and never cached. A 403 to a token that
//     was just made is Unavailable likewise.
//   - A token is for one room and one repository. All callers of that room share
//     it while it is valid for five minutes more.
//   - Whoever asks for what somebody else is asking GitHub for waits for that one
//     call.
package config
