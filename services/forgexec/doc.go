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
// Main is a process of its own: it reaps every child it has, answers SIGTERM and
// changes the attributes of the process.
package forgexec
