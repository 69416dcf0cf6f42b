// Package forgexec runs inside a build's container: it fetches the plan and the
// source of one attempt from the scheduler, runs the steps one after the other,
// and reports what they print and how they end.
//
// What it promises:
//
//   - A command runs at most once, whatever happens to the connection.
//   - Each report arrives once and in order: it is kept until it has been
//     acknowledged, and sent again after a break. While the scheduler is away the
//     steps run on, until maxKept of output waits; then they block on their
//     pipe, like any program whose output nobody reads.
//   - The source never writes outside the workspace, nor leaves a link there
//     that leads out of it.
//   - No process of a step outlives the last step.
//   - No secret leaves it: what is reported is masked before it is kept.
//
// The files of a checkout are in its pack, and are taken from there while it comes,
// several at once. What reads packs is written here: go-git's packfile package needs
// twice the processor's time for the same files (1.6 s in place of 0.8 s for 200 MB),
// holds each whole in memory, and cannot begin before all of the pack is there.
//
// Main is a process of its own: it reaps every child it has, answers SIGTERM and
// changes the attributes of the process.
package forgexec
