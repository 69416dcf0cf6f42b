package docker

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// image sees to it that the image is there and that forgexec can run in it.
func (e *Engine) image(ctx context.Context, spec engine.Spec, name string) (client.ImageInspectResult, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return client.ImageInspectResult{}, fault.Newf(fault.Invalid, "image %q is not a name of an image: %w", name, err)
	}
	image, err := e.client.ImageInspect(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return image, fmt.Errorf("inspect image %s: %w", name, err)
	}
	if err != nil || e.config.Pull == PullAlways {
		if err := e.pull(ctx, spec, ref, name); err != nil {
			return image, err
		}
		if image, err = e.client.ImageInspect(ctx, name); err != nil {
			return image, fmt.Errorf("inspect image %s: %w", name, err)
		}
	}
	if platform := image.Os + "/" + image.Architecture; platform != e.forgexec.platform {
		return image, fault.Newf(fault.Invalid, "image %s is for %s, builds run on %s here", name, platform, e.forgexec.platform)
	}
	if image.Config == nil { // an image that was imported without a word
		image.Config = &dockerspec.DockerOCIImageConfig{}
	}
	return image, nil
}

func (e *Engine) pull(ctx context.Context, spec engine.Spec, ref reference.Named, name string) error {
	host := reference.Domain(ref)
	auth, err := e.registries().Credentials(host)
	if err != nil {
		return fmt.Errorf("credentials for image %s: %w", name, err)
	}
	begin := time.Now()
	spec.Sayf("pulling image %s", name)
	stream, err := e.client.ImagePull(ctx, name, client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = e.follow(ctx, spec, name, stream)
	}
	switch {
	case err == nil:
		took := time.Since(begin).Round(100 * time.Millisecond)
		spec.Sayf("image %s pulled in %v", name, took)
		e.config.Log.InfoContext(ctx, "pulled", "image", name, "took", took)
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("pull image %s: %w", name, err)
	case dockerapi.Limited(err):
		return delayed(spec, time.Minute, 0, fmt.Errorf("image %s is not pulled yet, for %s limits how many are: %s; credentials in %s (docker login) raise that limit",
			name, host, dockerapi.Plain(err), e.config.ConfigFile))
	case dockerapi.Missing(err):
		return fault.Newf(fault.Invalid, "image %s cannot be pulled: %s: %s has no such image", name, dockerapi.Plain(err), host)
	case dockerapi.Refused(err):
		return fault.Newf(fault.Invalid, "image %s cannot be pulled: %s: %s refuses it; credentials for it belong into %s on Forge's host (docker login)",
			name, dockerapi.Plain(err), host, e.config.ConfigFile)
	case passing(full(err)):
		return full(err)
	}
	// What remains is a registry that is away, or the Docker engine itself.
	err = fmt.Errorf("pull image %s: %w", name, err)
	if _, away := e.client.Ping(ctx, client.PingOptions{}); away != nil {
		return err
	}
	return trouble{fmt.Errorf("%s does not answer as a registry should: %w", host, err)}
}

// follow reads what Docker tells of a pull and says in the build's log, now and
// then, how far it is.
func (e *Engine) follow(ctx context.Context, spec engine.Spec, name string, stream client.ImagePullResponse) error {
	defer stream.Close() //nolint:errcheck // it was not written to
	layers := map[string]jsonstream.Progress{}
	said := time.Now()
	for message, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return err
		}
		if message.Error != nil {
			return message.Error
		}
		if message.Status == "Downloading" && message.Progress != nil {
			layers[message.ID] = *message.Progress
		}
		if time.Since(said) < e.config.ProgressEvery {
			continue
		}
		said = time.Now()
		var got, total int64
		for _, layer := range layers {
			got, total = got+layer.Current, total+layer.Total
		}
		spec.Sayf("pulling image %s: %s of %s", name, dockerapi.Size(got), dockerapi.Size(total))
	}
	return nil
}

// delayed says in the build's log that Start is asked again, and is the error for
// that.
func delayed(spec engine.Spec, pause, within time.Duration, err error) error {
	spec.Sayf("%v; trying again in %v", err, pause)
	return &engine.DelayError{Err: err, Pause: pause, Within: within}
}
