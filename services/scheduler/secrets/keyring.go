package secrets

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// keyring encrypts secrets with its first key and decrypts with any.
type keyring struct {
	keys   []secretsKey
	random io.Reader
}

// secretsKey is XChaCha20-Poly1305, whose nonce is long enough to be random.
type secretsKey struct {
	id   string // names the key to people and tells nothing about it
	aead cipher.AEAD
}

// secretSlot is where a secret has its place. What was encrypted for one decrypts
// in no other.
type secretSlot struct {
	repositoryID      int64
	environment, name string
}

// slot is where something encrypted has its place: no two are the same.
type slot interface{ bytes() []byte }

// bytes holds no two slots to be the same: neither text can hold a NUL.
func (s secretSlot) bytes() []byte {
	return fmt.Appendf(nil, "forge secret\x00%d\x00%s\x00%s", s.repositoryID, s.environment, s.name)
}

func newKeyring(keys [][]byte, random io.Reader) (*keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("secrets keys: at least one is needed")
	}
	ring := &keyring{random: random}
	for n, key := range keys {
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, fmt.Errorf("secrets key %d: %w", n+1, err)
		}
		sum := sha256.Sum256(append([]byte("id of a forge secrets key\x00"), key...))
		ring.keys = append(ring.keys, secretsKey{id: hex.EncodeToString(sum[:4]), aead: aead})
	}
	return ring, nil
}

// seal encrypts with the first key, which it names.
func (r *keyring) seal(of slot, value string) (keyID string, sealed []byte, err error) {
	first := r.keys[0]
	nonce := make([]byte, first.aead.NonceSize(), first.aead.NonceSize()+len(value)+first.aead.Overhead())
	if _, err := io.ReadFull(r.random, nonce); err != nil {
		return "", nil, fmt.Errorf("random bits to encrypt with: %w", err)
	}
	return first.id, first.aead.Seal(nonce, nonce, []byte(value), of.bytes()), nil
}

// unsealable is why something encrypted cannot be read, for people; it names none.
type unsealable string

func (u unsealable) Error() string { return string(u) }

// open decrypts what was sealed for the slot; its error is unsealable.
func (r *keyring) open(of slot, keyID string, sealed []byte) (string, error) {
	for _, key := range r.keys {
		size := key.aead.NonceSize()
		if key.id != keyID || len(sealed) < size {
			continue
		}
		value, err := key.aead.Open(nil, sealed[:size], sealed[size:], of.bytes())
		if err != nil {
			break
		}
		return string(value), nil
	}
	if !r.has(keyID) {
		return "", unsealable(fmt.Sprintf("it was encrypted with key %s, which FORGE_SECRETS_KEY does not hold: add that key", keyID))
	}
	return "", unsealable("what is stored is damaged, or is not what was stored for it")
}

func (r *keyring) has(keyID string) bool {
	for _, key := range r.keys {
		if key.id == keyID {
			return true
		}
	}
	return false
}
