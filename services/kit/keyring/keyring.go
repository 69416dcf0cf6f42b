// Package keyring encrypts what is kept in a database. What was encrypted for one
// place decrypts in no other, and a key is replaced by putting another before it.
package keyring

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// Ring encrypts with its first key and decrypts with any.
type Ring struct {
	setting string
	keys    []key
	random  io.Reader
}

// key is XChaCha20-Poly1305, whose nonce is long enough to be random.
type key struct {
	id   string // names the key to people and tells nothing about it
	aead cipher.AEAD
}

// Slot is where something encrypted has its place: the bytes of no two are the same.
type Slot interface{ Bytes() []byte }

// New is a ring of these keys, 32 bytes each, that the named setting holds.
func New(setting string, keys [][]byte, random io.Reader) (*Ring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: at least one key is needed", setting)
	}
	ring := &Ring{setting: setting, random: random}
	for n, bits := range keys {
		aead, err := chacha20poly1305.NewX(bits)
		if err != nil {
			return nil, fmt.Errorf("%s: key %d: %w", setting, n+1, err)
		}
		sum := sha256.Sum256(append([]byte("id of a forge secrets key\x00"), bits...))
		ring.keys = append(ring.keys, key{id: hex.EncodeToString(sum[:4]), aead: aead})
	}
	return ring, nil
}

// First is the id of the key that encrypts.
func (r *Ring) First() string { return r.keys[0].id }

// Seal encrypts with the first key, which it names.
func (r *Ring) Seal(of Slot, value string) (keyID string, sealed []byte, err error) {
	first := r.keys[0]
	nonce := make([]byte, first.aead.NonceSize(), first.aead.NonceSize()+len(value)+first.aead.Overhead())
	if _, err := io.ReadFull(r.random, nonce); err != nil {
		return "", nil, fmt.Errorf("random bits to encrypt with: %w", err)
	}
	return first.id, first.aead.Seal(nonce, nonce, []byte(value), of.Bytes()), nil
}

// UnsealableError is why something encrypted cannot be read, for people; it names none.
type UnsealableError string

func (u UnsealableError) Error() string { return string(u) }

// Open decrypts what was sealed for the slot; its error is an UnsealableError.
func (r *Ring) Open(of Slot, keyID string, sealed []byte) (string, error) {
	for _, key := range r.keys {
		size := key.aead.NonceSize()
		if key.id != keyID || len(sealed) < size {
			continue
		}
		value, err := key.aead.Open(nil, sealed[:size], sealed[size:], of.Bytes())
		if err != nil {
			break
		}
		return string(value), nil
	}
	if !r.has(keyID) {
		return "", UnsealableError(fmt.Sprintf("it was encrypted with key %s, which %s does not hold: add that key", keyID, r.setting))
	}
	return "", UnsealableError("what is stored is damaged, or is not what was stored for it")
}

func (r *Ring) has(keyID string) bool {
	for _, key := range r.keys {
		if key.id == keyID {
			return true
		}
	}
	return false
}
