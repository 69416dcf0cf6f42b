// Package scheduler decides what runs next, and where. No event is built twice,
// no build is forgotten, nothing uncertain ever turns green, an older commit
// never replaces a newer one.
//
// A build is a row, and every change of it is one transaction: its state, the
// version under which GitHub is told, the environment it holds, the promotion it
// asks for. What is to follow from a change (a container to start or to stop, a
// report, a promotion, an answer) is a row with a due time in the same transaction, so a
// crash at any point loses nothing and a restart goes on from the rows.
//
// An attempt and its token are stored before the engine is asked to start it,
// and starting is idempotent by attempt. What a runner says counts until its
// attempt has ended; then it is refused, whoever ended it.
//
// What is built once stays built: the same commit for the same purpose is built
// again only where that build was cancelled, or a person asks. A rerun is a build
// of its own, so that an end stays an end. A merge, a press of a button and a
// comment are one wish each, whichever deliveries tell of them: GitHub signs what
// a delivery holds, not its id.
//
// Who may ask, GitHub says at that moment; what an event tells of it can be
// stale. A fork's commit runs once somebody with write access stands for it: its
// author, where nobody else has pushed it, or who approves that very commit. No
// rerun, new base or reopening does. Nothing that is deployed is repeated by a
// comment or a button.
//
// A secret leaves to a runner alone, as a variable of a build that names it. A
// fork's build gets none, a runner that does not mask gets none, and no build runs
// without one that is meant for it.
//
// A deploy holds its environment from before it starts until its container is
// gone. Right before it starts GitHub is asked whether what was deployed there
// contains its commit; since nothing else can be deployed meanwhile, the answer
// stays true. Where GitHub cannot be asked, the deploy waits.
package scheduler
