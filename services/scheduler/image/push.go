package image

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// part is the image for one platform.
type part struct {
	id       string // of its configuration
	image    v1.Image
	platform v1.Platform
	bases    map[string]string // images it may be built on, as shared has them
}

func (p part) spec() *ocispec.Platform {
	return &ocispec.Platform{OS: p.platform.OS, Architecture: p.platform.Architecture, Variant: p.platform.Variant}
}

// knownLayers are what registries have already: of the image that a tag names now, and of
// the images that this one is built on. A registry that cannot say so costs time alone.
type knownLayers struct {
	image  v1.Image // the whole image
	layers map[v1.Hash]v1.Layer
}

func (j *job) known(ctx context.Context, p part) knownLayers {
	known := knownLayers{layers: map[v1.Hash]v1.Layer{}}
	if found := j.find(ctx, j.tags[0], p); found != nil {
		if config, err := found.ConfigName(); err == nil && config.String() == p.id {
			known.image = found
			return known
		}
		known.add(found)
	}
	for image, digest := range p.bases {
		ref, err := name.ParseReference(image)
		if err != nil {
			continue
		}
		if found := j.find(ctx, ref.Context().Digest(digest), p); found != nil {
			known.add(found)
		}
	}
	return known
}

// find is one try, as an image that cannot be had is not needed.
func (j *job) find(ctx context.Context, ref name.Reference, p part) v1.Image {
	auth, err := j.resolver.auth(ctx, ref.Context().RegistryStr())
	if err != nil {
		return nil
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(j.transport))
	if err != nil {
		return nil
	}
	image, err := pick(desc, ref.String(), p.spec())
	if err != nil {
		return nil
	}
	return image
}

func (k *knownLayers) add(image v1.Image) {
	layers, err := image.Layers()
	if err != nil {
		return
	}
	for _, layer := range layers {
		if diff, err := layer.DiffID(); err == nil {
			if t, err := layer.MediaType(); err == nil && t.IsDistributable() && t.IsLayer() {
				k.layers[diff] = layer
			}
		}
	}
}

// artefact is an image, or an index of several.
type artefact interface {
	remote.Taggable
	Digest() (v1.Hash, error)
}

// push sends what was built by its digest to each repository, and then lets the tags name
// it. A tag is set by one request: whenever this ends, it names all or what it did before.
func (j *job) push(ctx context.Context, what artefact) (Result, error) {
	digest, err := what.Digest()
	if err != nil {
		return Result{}, err
	}
	pushers := map[string]*remote.Pusher{}
	for _, tag := range j.tags {
		repository := tag.Context()
		if pushers[repository.Name()] != nil {
			continue
		}
		auth, err := j.resolver.auth(ctx, repository.RegistryStr())
		if err != nil {
			return Result{}, err
		}
		pusher, err := remote.NewPusher(j.resolver.options(ctx, auth)...)
		if err != nil {
			return Result{}, err
		}
		by := repository.Digest(digest.String())
		if err := j.say("pushing %s", by); err != nil {
			return Result{}, err
		}
		if err := pusher.Push(ctx, by, what); err != nil {
			return Result{}, j.notPushed(ctx, by, err)
		}
		pushers[repository.Name()] = pusher
	}
	for _, tag := range j.tags {
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		if err := pushers[tag.Context().Name()].Put(ctx, tag, what); err != nil {
			return Result{}, j.notPushed(ctx, tag, err)
		}
		if err := j.say("%s is %s", tag, digest); err != nil {
			return Result{}, err
		}
	}
	return Result{Name: j.tags[0].Context().Name(), Digest: digest.String()}, nil
}

func (j *job) notPushed(ctx context.Context, ref name.Reference, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return refusal(fmt.Sprintf("%s is not pushed", ref), ref, err)
}

// say writes a line of Forge's own into the log.
func (j *job) say(format string, args ...any) error {
	_, err := fmt.Fprintf(j.log, format+"\n", args...)
	return err
}
