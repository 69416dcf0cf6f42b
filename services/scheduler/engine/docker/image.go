package docker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
)

// image sees to it that the image is there and that forgexec can run in it. One of a
// platform that is asked for takes the place of another's.
func (e *Engine) image(ctx context.Context, spec engine.Spec, name, asked string) (client.ImageInspectResult, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return client.ImageInspectResult{}, fault.Newf(fault.Invalid, "image %q is not a name of an image: %w", name, err)
	}
	image, err := e.client.ImageInspect(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return image, fmt.Errorf("inspect image %s: %w", name, err)
	}
	if err != nil || e.config.Pull == PullAlways || asked != "" && platform(image) != asked {
		if err := e.pull(ctx, spec, ref, name, asked); err != nil {
			return image, err
		}
		if image, err = e.client.ImageInspect(ctx, name); err != nil {
			return image, fmt.Errorf("inspect image %s: %w", name, err)
		}
	}
	if has := platform(image); has != e.forgexec.platform {
		return image, fault.Newf(fault.Invalid, "image %s is for %s, builds run on %s here", name, has, e.forgexec.platform)
	}
	if image.Config == nil { // an image that was imported without a word
		image.Config = &dockerspec.DockerOCIImageConfig{}
	}
	return image, nil
}

// platform is that of an image, as os/architecture.
func platform(image client.ImageInspectResult) string { return image.Os + "/" + image.Architecture }

func (e *Engine) pull(ctx context.Context, spec engine.Spec, ref reference.Named, name, asked string) error {
	host := reference.Domain(ref)
	auth, err := e.registries().Credentials(host)
	if err != nil {
		return fmt.Errorf("credentials for image %s: %w", name, err)
	}
	begin := time.Now()
	spec.Sayf("pulling image %s", name)
	spec.WaitsFor(engine.WaitImage, "pulling image "+name)
	defer spec.WaitsFor(engine.WaitOther, "")
	options := client.ImagePullOptions{RegistryAuth: auth}
	if asked != "" {
		options.Platforms = []ocispec.Platform{dockerapi.Platform(asked)}
	}
	stream, err := e.client.ImagePull(ctx, name, options)
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
	case dockerapi.Unmatched(err):
		return e.unmatched(ctx, name, host, auth)
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

// unmatched says for which platforms the registry has an image that it has for none
// of the Docker engine's.
func (e *Engine) unmatched(ctx context.Context, name, host, auth string) error {
	has := "others alone"
	if found, err := e.client.DistributionInspect(ctx, name, client.DistributionInspectOptions{EncodedRegistryAuth: auth}); err == nil && len(found.Platforms) > 0 {
		has = strings.Join(dockerapi.Platforms(found.Platforms), ", ")
	}
	return fault.Newf(fault.Invalid, "image %s cannot be pulled: %s has it for %s, builds run on %s here", name, host, has, e.forgexec.platform)
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
		text := fmt.Sprintf("pulling image %s: %s of %s", name, dockerapi.Size(got), dockerapi.Size(total))
		spec.Sayf("%s", text)
		spec.WaitsFor(engine.WaitImage, text)
	}
	return nil
}

// delayed says in the build's log that Start is asked again, and is the error for
// that.
func delayed(spec engine.Spec, pause, within time.Duration, err error) error {
	spec.Sayf("%v; trying again in %v", err, pause)
	return &engine.DelayError{Err: err, Pause: pause, Within: within}
}
