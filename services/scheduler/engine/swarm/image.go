package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// registryWithin bounds how long a registry is asked about an image.
const registryWithin = 15 * time.Second

// image is what a registry has said of one.
type image struct {
	name string // as people wrote it
	// pinned is the name with the digest it had, so that no two machines run different
	// images; the name alone where the registry did not say.
	pinned    string
	platforms []swarm.Platform // none: any
	auth      string           // for the machines that pull it
	host      string           // the registry's
	unsaid    error            // why the registry did not say
}

// resolve asks the image's registry. That it does not know the image, or does not
// answer, decides nothing: the machines may have the image all the same. Of the
// platforms only one that is asked for counts, if any is.
func (m *managers) resolve(ctx context.Context, name, asked string) (image, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return image{}, fault.Newf(fault.Invalid, "image %q is not a name of an image: %w", name, err)
	}
	i := image{name: name, pinned: name, host: reference.Domain(ref)}
	if i.auth, err = m.registries.Credentials(i.host); err != nil {
		return image{}, fmt.Errorf("credentials for image %s: %w", name, err)
	}
	if asked != "" {
		p := dockerapi.Platform(asked)
		i.platforms = []swarm.Platform{{OS: p.OS, Architecture: p.Architecture}}
	}
	within, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	found, err := m.client.DistributionInspect(within, name, client.DistributionInspectOptions{EncodedRegistryAuth: i.auth})
	if err != nil {
		i.unsaid = err
		return i, ctx.Err()
	}
	if _, digested := ref.(reference.Digested); !digested {
		if pinned, err := reference.WithDigest(reference.TagNameOnly(ref), found.Descriptor.Digest); err == nil {
			i.pinned = reference.FamiliarString(pinned)
		}
	}
	if asked != "" {
		if has := dockerapi.Platforms(found.Platforms); len(has) > 0 && !slices.Contains(has, asked) {
			return image{}, fault.Newf(fault.Invalid, "it asks for platform %s; %s has image %s for %s", asked, i.host, name, strings.Join(has, ", "))
		}
		return i, nil
	}
	seen := map[swarm.Platform]bool{}
	for _, p := range found.Platforms {
		platform := swarm.Platform{OS: p.OS, Architecture: p.Architecture}
		if p.OS == "unknown" || p.OS == "" || seen[platform] { // an index lists attestations, too
			continue
		}
		if strings.EqualFold(p.Architecture, "arm") { // machines call themselves armv7l and the like
			platform.Architecture = ""
		}
		seen[platform] = true
		i.platforms = append(i.platforms, platform)
	}
	return i, nil
}

// refusal is why no machine can ever pull the image; nil where the registry knows
// it, or has not said.
func (i image) refusal() error {
	switch {
	case i.unsaid == nil || dockerapi.Limited(i.unsaid):
		return nil
	case dockerapi.Missing(i.unsaid):
		return fault.Newf(fault.Invalid, "image %s: %s: %s has no such image", i.name, oneLine(dockerapi.Plain(i.unsaid)), i.host)
	case dockerapi.Refused(i.unsaid):
		return fault.Newf(fault.Invalid, "image %s: %s: %s refuses it; credentials for it belong into FORGE_BUILD_REGISTRIES_FILE (docker login)",
			i.name, oneLine(dockerapi.Plain(i.unsaid)), i.host)
	}
	return nil
}

// platform is a platform in the words of images.
func platform(p swarm.Platform) string {
	architecture := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[p.Architecture]
	if architecture == "" {
		architecture = p.Architecture
	}
	return p.OS + "/" + architecture
}
