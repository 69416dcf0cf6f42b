//go:build race

package buildfile

const slowdown = 10 // what the race detector costs
