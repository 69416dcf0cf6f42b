// Package reporter tells GitHub what became of a build. What GitHub should show
// is stored before a report is answered, is told at least once, and never goes
// backwards.
//
// Decisions that bind this room:
//
//   - A kind of report is one row of channels: how a build is viewed, published and
//     read back. Nothing else depends on the kind.
//   - A target is level-triggered: it holds the newest of what GitHub should show
//     (desired) and what GitHub was told last (published), and the loop closes the
//     difference. Reports that arrive in a burst, twice or out of order become one
//     call with the newest.
//   - The first pending and every final state are told at once. While GitHub
//     shows pending, another text for pending waits for a second: a build that is
//     queued, runs and ends within that second costs two calls, not three.
//   - A status is one per commit and context; a check run and a deployment are
//     one build's, found again by the build's id. What must not be made twice is
//     looked for before it is made again. Of these another text alone is not worth
//     a call.
//   - A report that can be told at once is leased with the transaction that stores
//     it and handed off to a worker, so that nothing but that one commit stands
//     between a build's end and GitHub.
//   - GitHub counts an installation's calls together. After a refusal all of its
//     targets wait until the moment that GitHub named, final states go before
//     others, and the calls are spaced until all goes well again. Of other failures
//     a target may have a few by bad luck, which cost it little, unless the whole
//     installation has them.
//   - What was told or refused is read back for a day, ever more rarely and with few calls,
//     and told again where GitHub shows something else.
//   - One replica at a time tells a target, for no longer than its lease. A call
//     that failed may have reached GitHub all the same; what GitHub shows then
//     counts as unknown, and the newest is told whatever it was before.
//   - A suspended installation pauses its targets. They are tried again when
//     GitHub says that it is back, and now and then besides: webhooks get lost,
//     and this one may arrive here before it arrives where the tokens are made.
//   - No state is lost to its wording: characters that GitHub does not take are
//     replaced, and what it refuses for its text is told in plain words.
//   - A final state that GitHub refuses is tried for a day, ever more rarely; then it
//     is kept, with the reason, for a person. A state that is not final is kept at
//     once, since the next report for the same target is told all the same.
package reporter
