// Package signin knows who asks. People sign in with GitHub through the App, in a
// browser or by a device's code, and show from then on a cookie or a token of their
// own; Forge asks GitHub as them what they may see.
//
// Decisions that bind this package:
//
//   - A secret that somebody shows, a cookie's or a token's, is stored as its hash; a
//     token of GitHub's, encrypted. None of them is in a log or an error.
//   - A sign-in that a browser did not begin ends nowhere: its state, its PKCE
//     verifier and where it leads are in a sealed cookie of that browser alone, and the
//     state is good once.
//   - Each sign-in makes a new session; one that was there before ends.
//   - Where to go after it is a path of this Forge, or its root.
//   - A request that a cookie is behind and that changes something comes from a page
//     of this Forge, by what the browser says of its origin, and has that page's
//     CSRF token.
//   - What lets Forge ask GitHub as a person is the person's, not the session's: once
//     GitHub has taken it back, no session and no token of theirs is good.
package signin
