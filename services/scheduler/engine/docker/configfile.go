package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

// stored is the file of Docker's client as it is now; an empty one where there is
// none, since credentials may be in DOCKER_AUTH_CONFIG.
func (e *Engine) stored() (*configfile.ConfigFile, error) {
	stored := configfile.New(e.config.ConfigFile)
	file, err := os.Open(e.config.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return stored, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	if err := stored.LoadFromReader(file); err != nil {
		return nil, fmt.Errorf("%s: %w", e.config.ConfigFile, err)
	}
	return stored, nil
}

// credentials returns what the Docker engine shows to the registry.
func (e *Engine) credentials(domain string) (string, error) {
	stored, err := e.stored()
	if err != nil {
		return "", err
	}
	auth, err := stored.GetAuthConfig(domain)
	if err != nil {
		return "", err
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
}

// environ is what every build's environment holds. The file's proxies are those that
// "docker run" would pass on.
func (e *Engine) environ(spec engine.Spec) ([]string, error) {
	stored, err := e.stored()
	if err != nil {
		return nil, fmt.Errorf("proxies of builds: %w", err)
	}
	all := maps.Clone(e.config.Proxies)
	if all == nil {
		all = map[string]string{}
	}
	for name, value := range stored.ParseProxyConfig(e.client.DaemonHost(), nil) {
		all[name] = *value
	}
	maps.Copy(all, e.config.Environment)
	all = engine.Beside(all, spec.Sidecars)
	environ := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		environ = append(environ, name+"="+all[name])
	}
	return environ, nil
}
