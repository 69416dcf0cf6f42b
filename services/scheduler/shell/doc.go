// Package shell opens terminals in kept containers: those of jobs that have failed.
//
//   - A shell is opened by who may write to the repository, and typed into by nobody else.
//   - It is in the audit log before anything runs, and once more when it is closed.
//   - It has the job's secrets only where who opened it may set them.
//   - What is typed and printed passes through the database, so that it does not matter
//     which replica has the person and which the runner. It is encrypted, bounded, and
//     removed as it is read: who does not read is not written to.
//   - A shell is closed with its person, its runner and its container, and when nothing was
//     typed or printed for a while.
package shell
