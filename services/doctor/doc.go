// Package doctor examines a Forge, whether it runs or not: what it is told, what it
// needs of this host, and what GitHub has to say of it.
//
//   - A check looks at one thing, within a time of its own, beside the others. What it
//     finds says what is wrong and, in a line, how to mend it.
//   - It changes nothing but for this: folders of the data directory are made, a blob is written, read and removed again, a
//     table is made in a transaction that is not committed, a container runs forgexec
//     for a moment, and GitHub is asked to send its ping once more where no delivery
//     has come through since.
//   - No finding holds a secret.
package doctor
