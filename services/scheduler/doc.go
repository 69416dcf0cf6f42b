// Package scheduler decides what runs next, and where.
//
//   - No event is built twice, no build is forgotten, nothing uncertain ever turns
//     green, an older commit never replaces a newer one.
//   - A build is a row, and every change of it is one transaction: its state, the
//     version under which GitHub is told, the environment it holds, the promotion
//     it asks for. What is to follow from a change (a container to start or to
//     stop, a report, a promotion, an answer) is a row with a due time in the same
//     transaction, so a crash at any point loses nothing and a restart goes on from
//     the rows.
//   - A rerun is a build of its own, so that an end stays an end.
//   - A fork's commit runs once somebody with write access stands for it: its
//     author, where nobody else has pushed it, or who approves that very commit. No
//     rerun, new base or reopening does. Nothing that is deployed is repeated by a
//     comment or a button.
//   - A secret leaves to a runner alone, as a variable of a build that names it. A
//     fork's build gets none, a runner that does not mask gets none, and no build
//     runs without one that is meant for it.
//
// This package is the contract, the loops and the wiring; the work is done in the
// packages below it, of which each imports only those before it: trigger and
// engine, store, logs, tests, secrets and environment, outbox, attempt, plan.
package scheduler
