package secrets

import "fmt"

// inputSlot is where a secret that somebody gave for one build has its place.
type inputSlot struct{ buildID, name string }

// Bytes holds no two slots to be the same.
func (s inputSlot) Bytes() []byte {
	return fmt.Appendf(nil, "forge input\x00%s\x00%s", s.buildID, s.name)
}

// SealInput encrypts what was given for a build, for that build alone.
func (v *Service) SealInput(buildID, name, value string) (keyID string, sealed []byte, err error) {
	return v.keyring.Seal(inputSlot{buildID, name}, value)
}

// OpenInput decrypts what SealInput has encrypted; its error is for people.
func (v *Service) OpenInput(buildID, name, keyID string, sealed []byte) (string, error) {
	return v.keyring.Open(inputSlot{buildID, name}, keyID, sealed)
}
