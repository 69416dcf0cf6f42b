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

// registrySlot is where what a repository shows to a registry has its place.
type registrySlot struct {
	repositoryID      int64
	environment, host string
}

// Bytes holds no two slots to be the same.
func (s registrySlot) Bytes() []byte {
	return fmt.Appendf(nil, "forge registry\x00%d\x00%s\x00%s", s.repositoryID, s.environment, s.host)
}
