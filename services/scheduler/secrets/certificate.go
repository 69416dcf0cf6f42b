package secrets

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	"github.com/forge-ci/forge/services/kit/keyring"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// certificateSlot is where the key of the runner address's certificate for a host
// has its place.
type certificateSlot string

func (c certificateSlot) Bytes() []byte { return []byte("forge runner certificate\x00" + string(c)) }

// RunnerCertificate returns the certificate of the runner address for a host and its
// key, both PEM: the same for all who share the database, made by whoever asks first.
// The key is encrypted with the first of keys, which are those of secrets. fresh has
// no effect of its own.
func RunnerCertificate(ctx context.Context, db *sqldb.DB, keys [][]byte, host string, fresh func() (cert, key []byte, err error)) (cert, key []byte, err error) {
	ring, err := keyring.New(keysSetting, keys, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	err = db.Write(ctx, func(ctx context.Context, t *sql.Tx) error {
		var keyID string
		var sealed []byte
		read := func() error {
			return t.QueryRowContext(ctx, `SELECT certificate, key_id, sealed FROM runner_certificates WHERE host = $1`+db.Dialect.ForUpdate(), host).
				Scan(&cert, &keyID, &sealed)
		}
		err := read()
		if errors.Is(err, sql.ErrNoRows) {
			if err := offer(ctx, t, ring, host, fresh); err != nil {
				return err
			}
			err = read() // another's, where that was first
		}
		if err != nil {
			return err
		}
		opened, err := ring.Open(certificateSlot(host), keyID, sealed)
		if err != nil {
			return fmt.Errorf("its key cannot be decrypted: %w; or set FORGE_TLS_CERT and FORGE_TLS_KEY", err)
		}
		key = []byte(opened)
		if keyID == ring.First() {
			return nil
		}
		if keyID, sealed, err = ring.Seal(certificateSlot(host), opened); err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, `UPDATE runner_certificates SET key_id = $2, sealed = $3 WHERE host = $1`, host, keyID, sealed)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for runners that is kept for %s: %w", host, err)
	}
	return cert, key, nil
}

// offer stores a certificate unless there is one.
func offer(ctx context.Context, t *sql.Tx, ring *keyring.Ring, host string, fresh func() (cert, key []byte, err error)) error {
	cert, key, err := fresh()
	if err != nil {
		return err
	}
	keyID, sealed, err := ring.Seal(certificateSlot(host), string(key))
	if err != nil {
		return err
	}
	_, err = t.ExecContext(ctx, `INSERT INTO runner_certificates (host, certificate, key_id, sealed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		host, cert, keyID, sealed)
	return err
}
