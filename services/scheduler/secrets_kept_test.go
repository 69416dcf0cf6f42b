package scheduler

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/keyring"
)

// sealedFor are the bytes that a value was bound to when it was encrypted.
type sealedFor string

func (s sealedFor) Bytes() []byte { return []byte(s) }

// What an older Forge has stored is opened for ever: what it is bound to does not change.
func TestWhatAnOlderForgeHasKeptIsHandedOutAndEncryptedAnew(t *testing.T) {
	eachPulling(t, func(t *testing.T, r pulling) {
		ring, err := keyring.New("FORGE_SECRETS_KEY", r.deps.SecretsKeys, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		db := r.open()
		for _, row := range []struct {
			of     sealedFor
			value  string
			insert string
		}{
			{"forge secret\x007\x00\x00TOKEN", "of all", `INSERT INTO secrets (repository_id, environment, name, repository, key_id, sealed, update_time)
				VALUES (7, '', 'TOKEN', 'Acme/shop', $1, $2, 1)`},
			{"forge secret\x007\x00staging\x00TOKEN", "of staging", `INSERT INTO secrets (repository_id, environment, name, repository, key_id, sealed, update_time)
				VALUES (7, 'staging', 'TOKEN', 'Acme/shop', $1, $2, 1)`},
			{"forge registry\x007\x00\x00ghcr.io", "hunter2", `INSERT INTO registry_credentials
				(repository_id, environment, host, repository, username, key_id, sealed, update_time, uses, branches)
				VALUES (7, '', 'ghcr.io', 'Acme/shop', 'octo', $1, $2, 1, 30, '')`},
			{"forge registry\x007\x00staging\x00ghcr.io", "hunter2-staging", `INSERT INTO registry_credentials
				(repository_id, environment, host, repository, username, key_id, sealed, update_time, uses, branches)
				VALUES (7, 'staging', 'ghcr.io', 'Acme/shop', 'octo', $1, $2, 1, 0, 'main')`},
		} {
			keyID, sealed, err := ring.Seal(row.of, row.value)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, row.insert, keyID, sealed)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		first, second := r.deps.SecretsKeys[0], bytes.Repeat([]byte("2"), 32)
		for n, keys := range [][][]byte{{first}, {second, first}, {second}} {
			r.deps.SecretsKeys = keys
			r.start()
			r.needing("TOKEN")
			test, deploy := r.built(opened(int32(n+1), fmt.Sprint("head", n))), r.built(mergedInto(int32(n+11), "main", fmt.Sprint("staged", n)))
			if got := r.given(test) + ", " + r.showsTo(test, "ghcr.io"); got != "map[TOKEN:of all], octo hunter2" {
				t.Errorf("with keys %d, a test gets %s", n, got)
			}
			if got := r.given(deploy) + ", " + r.showsTo(deploy, "ghcr.io"); got != "map[TOKEN:of staging], octo hunter2-staging" {
				t.Errorf("with keys %d, a deploy gets %s", n, got)
			}
			answer, err := r.secrets.ListSecrets(t.Context(), &schedulerv1.ListSecretsRequest{})
			if err != nil || len(answer.GetSecrets()) != 2 || len(answer.GetSecrets()[0].GetUses()) != 4 || len(answer.GetSecrets()[1].GetUses()) != 0 {
				t.Errorf("with keys %d, listed are %v: %v", n, answer.GetSecrets(), err)
			}
			r.cancelled(test)
			r.cancelled(deploy)
			r.stop()
		}
		r.start()
	})
}

func TestAllEnvironmentsThatHaveCredentialsAreNamed(t *testing.T) {
	r := pulling{sqliteRig(t)}
	r.start()
	r.setRegistry("staging", "ghcr.io", "hunter2")
	r.setRegistry("production", "ghcr.io", "hunter2")
	if got, want := r.showsTo(r.built(opened(1, "head")), "ghcr.io"), "the credentials for ghcr.io are only for deploys to production and staging"; got != want {
		t.Errorf("a test shows %q, want %q", got, want)
	}
}
