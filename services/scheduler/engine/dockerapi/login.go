package dockerapi

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"github.com/forge-ci/forge/services/kit/mask"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// dockerHub is the host of images whose names have none, and dockerHubServer what
// Docker calls it where it compares whom credentials are for.
const dockerHub, dockerHubServer = "docker.io", "https://index.docker.io/v1/"

// Login is what a build shows to a registry.
type Login struct {
	Auth string // for the Engine API
	// Own: it is not of the file, which is for all builds.
	Own      bool
	host     string
	withheld string
	masker   *mask.Masker
}

// Login is what a build shows to a registry: what it alone may, else what all may.
func (r Registries) Login(ctx context.Context, spec engine.Spec, host string) (Login, error) {
	var own engine.Login
	var err error
	if spec.Registries != nil {
		if own, err = spec.Registries.Login(ctx, host); err != nil {
			return Login{}, err
		}
	}
	if own.Password == "" {
		auth, err := r.Credentials(host)
		return Login{Auth: auth, host: host, withheld: own.Withheld}, err
	}
	shown := registry.AuthConfig{Username: own.Username, Password: own.Password, ServerAddress: host}
	if own.Username == engine.IdentityUser {
		shown = registry.AuthConfig{IdentityToken: own.Password, ServerAddress: host}
	}
	if host == dockerHub {
		shown.ServerAddress = dockerHubServer
	}
	auth, err := authconfig.Encode(shown)
	return Login{Auth: auth, Own: true, host: host, masker: mask.New([]string{own.Password, own.Username + ":" + own.Password})}, err
}

// proves is what tells that a registry gave images of a name to who showed this.
func (l Login) proves(name string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", name, l.Auth))
}

// Advice is for people whose build a registry refuses: file has what all builds show.
func (l Login) Advice(spec engine.Spec, file string) string {
	advice := fmt.Sprintf("credentials for it belong into %s (docker login)", file)
	switch {
	case l.withheld != "":
		return l.withheld
	case l.Own:
		return "those that are set for it are refused: forge secrets registry list"
	case spec.Registries != nil:
		return advice + ", or are set for this repository: forge secrets registry set " + l.host + " --repo " + spec.Repository
	}
	return advice
}

// Hide takes what is shown out of the words of an error: a registry may repeat what it was
// shown, and logs of builds are read by many.
func (l Login) Hide(err error) error {
	if err == nil || l.masker == nil {
		return err
	}
	return hiddenError{l.masker.String(err.Error()), err}
}

type hiddenError struct {
	text string
	err  error
}

func (h hiddenError) Error() string { return h.text }

func (h hiddenError) Unwrap() error { return h.err }
