package main

import (
	"fmt"
	"os"

	"github.com/forge-ci/forge/services/settings"
)

type secret struct {
	New newSecret `cmd:"" help:"Print a new secret: for FORGE_WEBHOOK_SECRETS and the App's settings page, or for FORGE_SECRETS_KEY."`
}

type newSecret struct{}

// Run prints the secret alone, so that scripts can use it.
func (newSecret) Run() error {
	_, err := fmt.Fprintln(os.Stdout, settings.NewSecret())
	return err
}
