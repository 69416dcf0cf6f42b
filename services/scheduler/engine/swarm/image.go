package swarm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/swarm"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// limitedFor is the pause before a registry is asked anew that wants to be asked less, or
// does not answer where its word counts.
const limitedFor = time.Minute

// image is what a registry has said of one.
type image struct {
	name string // as people wrote it
	// pinned is the name with the digest it had, so that no two machines run different
	// images; the name alone where the registry did not say.
	pinned    string
	platforms []swarm.Platform // none: any
	login     dockerapi.Login  // for the machines that pull it
	host      string           // the registry's
	unsaid    error            // why the registry did not say
}

// resolve asks the image's registry. That it does not know the image, or does not
// answer, decides nothing: the machines may have the image all the same. It does for an
// image that is private, since the machines ask nobody whose it is. Of the
// platforms only one that is asked for counts, if any is.
func (m *managers) resolve(ctx context.Context, spec engine.Spec, name, asked string) (image, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return image{}, fault.Newf(fault.Invalid, "image %q is not a name of an image: %w", name, err)
	}
	i := image{name: name, pinned: name, host: reference.Domain(ref)}
	if i.login, err = m.registries.Login(ctx, spec, i.host); err != nil {
		return image{}, fmt.Errorf("credentials for image %s: %w", name, err)
	}
	if asked != "" {
		p := dockerapi.Platform(asked)
		i.platforms = []swarm.Platform{{OS: p.OS, Architecture: p.Architecture}}
	}
	found, err := m.access.Ask(ctx, ref, i.login)
	if err != nil {
		i.unsaid = err
		return i, cmp.Or(ctx.Err(), m.mayHave(ctx, spec, ref, i))
	}
	if err := m.access.Announce(ctx, spec, ref, i.login); err != nil {
		return image{}, fmt.Errorf("image %s: %w", name, err)
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

// mayHave is why a build may not have an image that its registry has not given it; nil
// where the image is for all.
func (m *managers) mayHave(ctx context.Context, spec engine.Spec, ref reference.Named, i image) error {
	if spec.Registries == nil {
		return nil
	}
	since, err := spec.Registries.Private(ctx, ref.Name())
	if err != nil || since.IsZero() {
		return err
	}
	if err := i.refusal(spec); err != nil {
		return err
	}
	err = fmt.Errorf("image %s is for the builds that %s gives it, which does not say: %s", i.name, i.host, oneLine(dockerapi.Plain(i.unsaid)))
	spec.Sayf("%v; trying again in %v", err, limitedFor)
	return &engine.DelayError{Err: err, Pause: limitedFor}
}

// refusal is why no machine can ever pull the image; nil where the registry knows
// it, or has not said.
func (i image) refusal(spec engine.Spec) error {
	switch {
	case i.unsaid == nil || dockerapi.Limited(i.unsaid):
		return nil
	case dockerapi.Missing(i.unsaid):
		return fault.Newf(fault.Invalid, "image %s: %s: %s has no such image", i.name, oneLine(dockerapi.Plain(i.unsaid)), i.host)
	case dockerapi.Refused(i.unsaid):
		return fault.Newf(fault.Invalid, "image %s: %s: %s refuses it; %s",
			i.name, oneLine(dockerapi.Plain(i.unsaid)), i.host, i.login.Advice(spec, "FORGE_BUILD_REGISTRIES_FILE"))
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
