package main

import (
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/settings"
)

type version struct{}

// Run prints the version alone, so that scripts can use it.
func (version) Run() error {
	_, err := fmt.Fprintln(os.Stdout, settings.Version)
	return err
}
