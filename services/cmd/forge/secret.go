package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
)

type secret struct {
	New newSecret `cmd:"" help:"Print a new webhook secret, for FORGE_WEBHOOK_SECRETS and the App's settings page."`
}

type newSecret struct{}

// Run prints the secret alone, so that scripts can use it.
func (newSecret) Run() error {
	bits := make([]byte, 32)
	_, _ = rand.Read(bits) // never returns an error
	_, err := fmt.Fprintln(os.Stdout, hex.EncodeToString(bits))
	return err
}
