// Package backup copies the embedded state of Forge while it runs, and puts a copy in the
// place of a state.
//
// Decisions that bind this package:
//
//   - Each database is copied as it is at one moment, and they are copied in the order in
//     which news goes through them: the gateway's first, then the scheduler's, then the
//     reporter's. So a copy knows at least what the copy before it says was handed on.
//     What the gateway's has as undecided, the scheduler's may have decided: it is relayed
//     again, and gets the same decision by its id. What the scheduler's has as untold, the
//     reporter's may have told: it is told again, and of one target the newest counts. In
//     another order something would count as handed on that nobody has.
//   - What came after the copy is fetched again: webhooks from GitHub, at the next start.
//     Builds that began after it run again, as others.
//   - Blobs are those that the scheduler's copy names. One that was removed meanwhile, since
//     its time was over, is left out.
//   - Keys are in a file of their own, or left out.
//   - A restore unpacks and checks everything beside the old state, then commits by one
//     rename. Up to that the old state is the one there is; from then on the new one: who
//     finds the commit when it starts moves what is left to be moved.
package backup
