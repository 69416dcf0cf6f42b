//go:build !race

package buildfile

const slowdown = 1
