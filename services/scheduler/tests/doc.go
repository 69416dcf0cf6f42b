// Package tests keeps what builds report of their tests and linters, and says what
// follows from it: what failed, here and not on the base branch, what is slow and what
// is flaky. It serves TestService.
//
//   - A result is stored in the transaction that acknowledges its report, of the
//     attempt that may report, so that each counts once.
//   - What a pull request reports, a fork's or not, is in a scope of its own: it
//     changes no list of flaky tests but its own, and no comparison. Main's scope has
//     what was merged, or pushed to a branch that the server or the repository names.
//   - What a runner sends may be anybody's. It is bounded and cleaned here again.
package tests
