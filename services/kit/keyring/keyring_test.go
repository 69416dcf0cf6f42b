package keyring_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/keyring"
)

type place string

func (p place) Bytes() []byte { return []byte(p) }

func ring(t *testing.T, keys ...byte) *keyring.Ring {
	t.Helper()
	var all [][]byte
	for _, key := range keys {
		all = append(all, bytes.Repeat([]byte{key}, 32))
	}
	r, err := keyring.New("FORGE_X_KEY", all, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatIsSealedOpensInItsPlaceWithItsKey(t *testing.T) {
	keyID, sealed, err := ring(t, 1).Seal(place("a"), "hush")
	if err != nil || bytes.Contains(sealed, []byte("hush")) || keyID != ring(t, 1, 2).First() {
		t.Fatalf("sealed %q with %s: %v", sealed, keyID, err)
	}
	if got, err := ring(t, 2, 1).Open(place("a"), keyID, sealed); err != nil || got != "hush" {
		t.Errorf("behind a newer key: %q, %v", got, err)
	}
	broken := bytes.Clone(sealed)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		ring   *keyring.Ring
		place  place
		sealed []byte
		says   string
	}{
		"another place": {ring(t, 1), "b", sealed, "what is stored is damaged"},
		"damaged":       {ring(t, 1), "a", broken, "what is stored is damaged"},
		"cut":           {ring(t, 1), "a", sealed[:5], "what is stored is damaged"},
		"another key":   {ring(t, 2), "a", sealed, "which FORGE_X_KEY does not hold: add that key"},
	} {
		got, err := c.ring.Open(c.place, keyID, c.sealed)
		var why keyring.UnsealableError
		if got != "" || !errors.As(err, &why) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	for name, keys := range map[string][][]byte{"none": nil, "a short one": {[]byte("short")}} {
		if _, err := keyring.New("FORGE_X_KEY", keys, rand.Reader); err == nil || !strings.HasPrefix(err.Error(), "FORGE_X_KEY: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
