package image

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/moby/client"
)

// Names of images in the Docker engine. They cannot be guessed: an engine shows its
// images to every build.
const (
	building = "forge-build/" // until it was pushed
	loaded   = "forge-load/"  // until the run has ended
)

// IsForges reports whether a name is one of those, of whatever Forge, in whatever way it
// is written.
func IsForges(name string) bool {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil || reference.Domain(ref) != "docker.io" {
		return false
	}
	path := reference.Path(ref)
	return strings.HasPrefix(path, building) || strings.HasPrefix(path, loaded)
}

// LoadName is a new name for Request.Load; "" where no image can be loaded: it takes the
// Docker engine's own BuildKit. Who keeps it has Forget called for it, whatever becomes of
// the image.
func (b *Builder) LoadName() string {
	if !b.own() {
		return ""
	}
	return b.nameFor(loaded)
}

// nameFor begins with what this Forge's images begin with, and cannot be guessed.
func (b *Builder) nameFor(prefix string) string {
	return b.prefix(prefix) + strings.ToLower(rand.Text()) + ":1"
}

func (b *Builder) prefix(prefix string) string {
	sum := sha256.Sum256([]byte(b.config.Instance)) // a name has few characters
	return prefix + hex.EncodeToString(sum[:8]) + "/"
}

// runDocker builds with the Docker engine's own BuildKit, one platform after the other.
// The engine keeps each image under a name of its own, so that none is removed that
// another build has made, too.
func (j *job) runDocker(ctx context.Context, bk *bkclient.Client) (Result, error) {
	var all []part
	var result Result
	for _, platform := range j.platforms() {
		name := cmp.Or(j.request.Load, j.nameFor(building))
		keep := false
		defer func() {
			if !keep {
				j.remove(context.WithoutCancel(ctx), name)
			}
		}()
		var only []string
		if platform != "" {
			only = []string{platform}
		}
		done, err := j.solve(ctx, bk, only, bkclient.ExportEntry{Type: "moby", Attrs: map[string]string{"name": name}}, nil)
		if err != nil {
			return Result{}, err
		}
		inspected, err := j.config.Docker.ImageInspect(ctx, name)
		if err != nil {
			return Result{}, fmt.Errorf("image that was built: %w", err)
		}
		result.Digest = inspected.ID
		if j.request.Push {
			p := part{id: inspected.ID, platform: v1.Platform{OS: inspected.Os, Architecture: inspected.Architecture, Variant: inspected.Variant}, bases: done.images}
			if platform != "" { // the engine drops variants
				asked := platforms.MustParse(platform)
				p.platform = v1.Platform{OS: asked.OS, Architecture: asked.Architecture, Variant: asked.Variant}
			}
			if p.image, err = j.fromEngine(ctx, name, p); err != nil {
				return Result{}, err
			}
			all = append(all, p)
		}
		if j.request.Load != "" {
			result.Name, result.Loaded, keep = name, name, true
		}
	}
	if !j.request.Push {
		return result, nil
	}
	pushed, err := j.pushParts(ctx, all)
	if err != nil {
		if result.Loaded != "" {
			j.remove(context.WithoutCancel(ctx), result.Loaded)
		}
		return Result{}, err
	}
	pushed.Loaded = result.Loaded
	return pushed, nil
}

// remove takes a name from an image, which goes with its last one.
func (b *Builder) remove(ctx context.Context, name string) {
	if err := b.Forget(ctx, name); err != nil {
		b.config.Log.WarnContext(ctx, "an image stays in the Docker engine", "image", name, "error", err)
	}
}

// Forget removes a loaded image, by Result.Loaded. One that is not there is forgotten.
func (b *Builder) Forget(ctx context.Context, name string) error {
	if !IsForges(name) {
		return fmt.Errorf("forget image %s: no Forge has built it", name)
	}
	_, err := b.config.Docker.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("forget image %s: %w", name, err)
	}
	return nil
}

// Leftovers are images of this Forge in the Docker engine, those that are being built
// included. Who knows which of them are needed has Forget called for the others.
func (b *Builder) Leftovers(ctx context.Context) ([]string, error) {
	if b.config.Docker == nil {
		return nil, nil
	}
	var names []string
	for _, prefix := range []string{b.prefix(building), b.prefix(loaded)} {
		found, err := b.config.Docker.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", prefix+"*")})
		if err != nil {
			return nil, fmt.Errorf("images of this Forge: %w", err)
		}
		for _, image := range found.Items {
			for _, tag := range image.RepoTags {
				if strings.HasPrefix(tag, prefix) {
					names = append(names, tag)
				}
			}
		}
	}
	return names, nil
}

// ForgetUnfinished removes images whose build a Forge that was killed has left. It is for
// who knows that nobody builds any for this Forge.
func (b *Builder) ForgetUnfinished(ctx context.Context) error {
	left, err := b.Leftovers(ctx)
	for _, name := range left {
		if strings.HasPrefix(name, b.prefix(building)) {
			err = errors.Join(err, b.Forget(ctx, name))
		}
	}
	return err
}
