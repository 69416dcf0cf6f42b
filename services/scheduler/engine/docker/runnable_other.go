//go:build !linux

package docker

import "errors"

// runnable: elsewhere containers run in a machine of their own.
func runnable(string) error { return errors.New("folders of this host are not those of containers") }
