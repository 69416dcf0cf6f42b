package main

import (
	"os"
	"testing"
	"time"
)

// Moments are printed as if the machine stood in Greenwich.
func TestMain(m *testing.M) {
	time.Local = time.UTC //nolint:gosmopolitan // moment's own
	os.Exit(m.Run())
}
