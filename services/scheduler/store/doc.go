// Package store keeps the rows of the scheduler and makes the one transaction that
// changes them.
//
//   - All SQL of the room is here, but for that of logs and of secrets.
//   - What is to follow from a change is a row with a due time in the same
//     transaction; Tx.OnCommit wakes who works on it, once it is committed.
//   - A build is saved and GitHub is to be told of it in one statement after the
//     other: SaveBuild enqueues the report itself, so that nobody can forget to.
//   - Errors have the kinds of package fault; no caller sees a driver's.
package store
