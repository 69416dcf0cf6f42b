// Package attempt owns a build from the queue to its end. There is at most one
// live attempt of a build, fenced by its number.
//
//   - An attempt and its token are stored before the engine is asked to start it,
//     and starting is idempotent by attempt.
//   - What a runner says counts until its attempt has ended; then it is refused,
//     whoever ended it.
//   - Nothing uncertain ever turns green: passed is what ran to its end and whose
//     every step is known to have ended with 0.
package attempt
