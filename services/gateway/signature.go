package gateway

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what old Enterprise Servers sign with
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
)

// signed reports whether the body was signed with one of the secrets. sha256 and
// sha1 are the values of X-Hub-Signature-256 and X-Hub-Signature: the first alone
// decides where it is there, and one that is there twice signs nothing.
// https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
func signed(body []byte, secrets, with256, with1 []string) bool {
	if len(with256) > 0 {
		return fits(body, secrets, with256, "sha256=", sha256.New)
	}
	return fits(body, secrets, with1, "sha1=", sha1.New)
}

func fits(body []byte, secrets, values []string, scheme string, algorithm func() hash.Hash) bool {
	if len(values) != 1 {
		return false
	}
	digits, ok := strings.CutPrefix(values[0], scheme)
	if !ok {
		return false
	}
	given, err := hex.DecodeString(digits)
	if err != nil {
		return false
	}
	for _, secret := range secrets {
		mac := hmac.New(algorithm, []byte(secret))
		mac.Write(body)
		if secret != "" && hmac.Equal(mac.Sum(nil), given) {
			return true
		}
	}
	return false
}
