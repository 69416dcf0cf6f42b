package secrets

import "fmt"

// keysSetting names what holds the keys of secrets.
const keysSetting = "FORGE_SECRETS_KEY"

// secretSlot is where a secret has its place. What was encrypted for one decrypts
// in no other.
type secretSlot struct {
	repositoryID      int64
	environment, name string
}

// Bytes holds no two slots to be the same: neither text can hold a NUL.
func (s secretSlot) Bytes() []byte {
	return fmt.Appendf(nil, "forge secret\x00%d\x00%s\x00%s", s.repositoryID, s.environment, s.name)
}
