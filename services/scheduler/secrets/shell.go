package secrets

// shellSlot is where something on its way to or from a shell has its place.
type shellSlot string

// Bytes holds no two slots to be the same.
func (s shellSlot) Bytes() []byte { return []byte("forge shell\x00" + string(s)) }

// SealFrame encrypts what is on its way to or from a shell: people type passwords.
func (v *Service) SealFrame(shellID string, frame []byte) (keyID string, sealed []byte, err error) {
	return v.keyring.Seal(shellSlot(shellID), string(frame))
}

// OpenFrame decrypts what SealFrame has encrypted.
func (v *Service) OpenFrame(shellID, keyID string, sealed []byte) ([]byte, error) {
	frame, err := v.keyring.Open(shellSlot(shellID), keyID, sealed)
	return []byte(frame), err
}
