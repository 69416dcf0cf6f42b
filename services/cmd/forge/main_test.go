package main

import (
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Moments are printed as if the machine stood in Greenwich. In scripts, and where a
// Forge is started for them, this binary is forge.
func TestMain(m *testing.M) {
	time.Local = time.UTC //nolint:gosmopolitan // moment's own
	testscript.Main(m, map[string]func(){"forge": func() { os.Exit(run()) }})
}
