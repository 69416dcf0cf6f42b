// Package concurrency has builds of one group run one at a time, in order or the newest
// alone. A group is of one repository and one tier of trust: what nobody has merged can
// neither hold nor cancel what was, and a stranger's pull request nothing but itself.
// Deploys are in none: their environment lets one in at a time.
package concurrency
