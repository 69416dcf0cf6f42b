package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
)

// image sees to it that the image is there and that forgexec can run in it. The
// notice is for the build's log: why it took so long.
func (e *Engine) image(ctx context.Context, name string) (notice string, err error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fault.Newf(fault.Invalid, "image %q is not a name of an image: %w", name, err)
	}
	image, err := e.client.ImageInspect(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("inspect image %s: %w", name, err)
	}
	if err != nil || e.config.Pull == PullAlways {
		begin := time.Now()
		if err := e.pull(ctx, ref, name); err != nil {
			return "", err
		}
		if image, err = e.client.ImageInspect(ctx, name); err != nil {
			return "", fmt.Errorf("inspect image %s: %w", name, err)
		}
		took := time.Since(begin).Round(100 * time.Millisecond)
		notice = fmt.Sprintf("image %s pulled in %v", name, took)
		e.config.Log.InfoContext(ctx, "pulled", "image", name, "took", took)
	}
	if platform := image.Os + "/" + image.Architecture; platform != e.forgexec.platform {
		return "", fault.Newf(fault.Invalid, "image %s is for %s, builds run on %s here", name, platform, e.forgexec.platform)
	}
	return notice, nil
}

func (e *Engine) pull(ctx context.Context, ref reference.Named, name string) error {
	auth, err := e.credentials(reference.Domain(ref))
	if err != nil {
		return fmt.Errorf("credentials for image %s: %w", name, err)
	}
	progress, err := e.client.ImagePull(ctx, name, client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = progress.Wait(ctx)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && refused(err):
		return fault.Newf(fault.Invalid, "image %s cannot be pulled: %s", name, plain(err))
	}
	return fmt.Errorf("pull image %s: %w", name, err)
}

// refused reports whether a registry has answered, and another try would get the
// same answer.
func refused(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) ||
		slices.ContainsFunc(refusals(), func(text string) bool { return strings.Contains(err.Error(), text) })
}

// refusals are the words of refusals that come without a status of their own:
// Docker passes those of registries on as 500, and has none once it has begun to
// report progress. They are of the registry API's error codes, and of Docker's and
// containerd's clients.
func refusals() []string {
	return []string{
		"manifest unknown", "name unknown", "unauthorized", "no basic auth credentials", "access to the resource is denied",
		"pull access denied", "no matching manifest", "does not match the specified platform",
	}
}

// credentials returns what the Docker engine shows to the registry.
func (e *Engine) credentials(domain string) (string, error) {
	stored := configfile.New(e.config.ConfigFile)
	file, err := os.Open(e.config.ConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist): // there may be some in DOCKER_AUTH_CONFIG
	case err != nil:
		return "", err
	default:
		defer file.Close() //nolint:errcheck // it was not written to
		if err := stored.LoadFromReader(file); err != nil {
			return "", fmt.Errorf("%s: %w", e.config.ConfigFile, err)
		}
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
