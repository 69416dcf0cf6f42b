package settings

// Version of this Forge. The linker sets it:
// -ldflags "-X github.com/forge-ci/forge/services/settings.Version=v1.2.3".
var Version = "dev"
