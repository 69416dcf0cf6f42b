package scheduler

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func TestTheRunnersCertificateIsMadeOnceForAll(t *testing.T) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		db := open()
		first, second := make([]byte, 32), bytes.Repeat([]byte{2}, 32)
		var made atomic.Int32
		var broken atomic.Bool
		fresh := func() (cert, key []byte, err error) {
			if broken.Load() {
				return nil, nil, errors.New("no entropy")
			}
			n := made.Add(1)
			return fmt.Appendf(nil, "certificate %d", n), fmt.Appendf(nil, "key %d of %s", n, rand.Text()), nil
		}
		ask := func(host string, keys ...[]byte) string {
			cert, key, err := RunnerCertificate(t.Context(), db, keys, host, fresh)
			if err != nil {
				return err.Error()
			}
			return string(cert) + " " + string(key)
		}
		answers := make([]string, 8)
		var all sync.WaitGroup
		for n := range answers {
			all.Go(func() { answers[n] = ask("forge.test", first) })
		}
		all.Wait()
		for _, answer := range answers {
			if answer != answers[0] || !strings.HasPrefix(answer, "certificate ") {
				t.Errorf("one replica has %q, another %q", answers[0], answer)
			}
		}
		if other := ask("other.test", first); other == answers[0] || !strings.HasPrefix(other, "certificate ") {
			t.Errorf("another host has %q", other)
		}
		var sealed []byte
		if err := db.Read().QueryRow(`SELECT sealed FROM runner_certificates WHERE host = 'forge.test'`).Scan(&sealed); err != nil || bytes.Contains(sealed, []byte("key ")) {
			t.Errorf("the key is kept as %q, %v", sealed, err)
		}

		if got := ask("forge.test", second); !strings.Contains(got, "which FORGE_SECRETS_KEY does not hold: add that key; or set FORGE_TLS_CERT and FORGE_TLS_KEY") {
			t.Errorf("without the key: %s", got)
		}
		for _, keys := range [][][]byte{{second, first}, {second}} { // one replaces the other
			if got := ask("forge.test", keys...); got != answers[0] {
				t.Errorf("with %d keys: %q, want %q", len(keys), got, answers[0])
			}
		}
		broken.Store(true)
		if got := ask("third.test", first); !strings.HasSuffix(got, "third.test: no entropy") {
			t.Errorf("one that cannot be made: %s", got)
		}
	})
}
