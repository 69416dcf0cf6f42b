// Package graph says which jobs of a build run next, which never will, and what
// the build has come to once all have ended. It changes what it is given and
// asks nobody.
//
//   - A job begins once all that it needs have ended, each with all its cells.
//   - A need counts as a success where it passed, may fail, or was left out by its
//     own `if`.
//   - Nothing that was left out because of a failure ever turns the build green.
package graph
