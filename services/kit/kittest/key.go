package kittest

import (
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"
)

var appKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// AppKey is the key of a GitHub App, the same for all tests of a process: to make one
// takes up to seconds.
func AppKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
