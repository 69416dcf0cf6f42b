// Command forgexec runs the steps of one build, inside its container.
package main

import (
	"context"
	"os"

	"github.com/forge-ci/forge/services/forgexec"
)

func main() {
	os.Exit(forgexec.Main(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
