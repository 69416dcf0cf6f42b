// Package schedule runs what files ask for at times of the clock.
//
//   - A schedule is what the file at the newest commit of the default branch has, and no
//     other file: no pull request and no fork adds one, or changes it.
//   - A file that breaks, or cannot be read, leaves the schedules that it had, which say so.
//   - Times are looked at, not waited for: one that came while Forge was away, or GitHub,
//     is run for once, late, whatever came after it meanwhile.
//   - The transaction that makes a build moves its schedule on, so that of all replicas
//     one runs each time.
//   - No two builds of a schedule are under way: the next waits until the last has ended.
package schedule
