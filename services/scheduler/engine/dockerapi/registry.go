package dockerapi

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

// Registries is what a file of Docker's client says, as "docker login" keeps it. It
// is read each time it is asked.
type Registries struct{ File string }

// stored is the file as it is now; an empty one where there is none, since
// credentials may be in DOCKER_AUTH_CONFIG.
func (r Registries) stored() (*configfile.ConfigFile, error) {
	stored := configfile.New(r.File)
	file, err := os.Open(r.File)
	if errors.Is(err, fs.ErrNotExist) {
		return stored, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was not written to
	if err := stored.LoadFromReader(file); err != nil {
		return nil, fmt.Errorf("%s: %w", r.File, err)
	}
	return stored, nil
}

// Credentials returns what the Docker engine shows to the registry.
func (r Registries) Credentials(domain string) (string, error) {
	stored, err := r.stored()
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

// Environ is what every build's environment holds: the file's proxies, those that
// "docker run" would pass on to the Docker engine at host, win over proxies, and
// environment over both.
func (r Registries) Environ(host string, proxies, environment map[string]string, sidecars []engine.Sidecar) ([]string, error) {
	stored, err := r.stored()
	if err != nil {
		return nil, fmt.Errorf("proxies of builds: %w", err)
	}
	all := maps.Clone(proxies)
	if all == nil {
		all = map[string]string{}
	}
	for name, value := range stored.ParseProxyConfig(host, nil) {
		all[name] = *value
	}
	maps.Copy(all, environment)
	all = engine.Beside(all, sidecars)
	environ := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		environ = append(environ, name+"="+all[name])
	}
	return environ, nil
}

// Limited reports whether the registry wants fewer pulls, which it does for hours.
func Limited(err error) bool {
	return Says(err, "toomanyrequests", "TOOMANYREQUESTS", "429 Too Many Requests")
}

// Missing reports whether the registry knows no such image.
func Missing(err error) bool {
	return errdefs.IsNotFound(err) || Unmatched(err) || Says(err, "manifest unknown", "name unknown")
}

// Unmatched reports whether the registry knows the image, for other platforms alone.
func Unmatched(err error) bool {
	return Says(err, "no matching manifest", "does not match the specified platform")
}

// Platform is os/architecture as the API has it.
func Platform(text string) ocispec.Platform {
	os, architecture, _ := strings.Cut(text, "/")
	return ocispec.Platform{OS: os, Architecture: architecture}
}

// Platforms are those of an image in its own words, each once. An index lists
// attestations, too, whose platform is unknown.
func Platforms(all []ocispec.Platform) []string {
	var names []string
	for _, p := range all {
		if name := p.OS + "/" + p.Architecture; p.OS != "" && p.OS != "unknown" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Refused reports whether a registry has answered, and another try would get the
// same answer.
func Refused(err error) bool {
	return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) ||
		Says(err, "unauthorized", "no basic auth credentials", "access to the resource is denied", "pull access denied")
}

// Says looks for words, since answers of registries come without a status of
// their own: Docker passes them on as 500, and has none once it has begun to report
// progress. The words are of the registry API's error codes, and of Docker's and
// containerd's clients.
func Says(err error, words ...string) bool {
	return slices.ContainsFunc(words, func(text string) bool { return strings.Contains(err.Error(), text) })
}
