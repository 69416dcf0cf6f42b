package docker

import (
	"context"
	"errors"
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
	// The whole name, since a short one can be the id of an image that is somebody else's.
	whole := reference.TagNameOnly(ref).String()
	image, err := e.client.ImageInspect(ctx, whole)
	if err != nil && !errdefs.IsNotFound(err) {
		return image, fmt.Errorf("inspect image %s: %w", name, err)
	}
	if err != nil || e.config.Pull == PullAlways || asked != "" && platform(image) != asked {
		if err := e.pull(ctx, spec, ref, name, asked); err != nil {
			return image, err
		}
		if image, err = e.client.ImageInspect(ctx, whole); err != nil {
			return image, fmt.Errorf("inspect image %s: %w", name, err)
		}
	} else if err := e.mayHave(ctx, spec, ref, name); err != nil {
		return image, err
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

// mayHave is nil where a build may have an image that is there.
func (e *Engine) mayHave(ctx context.Context, spec engine.Spec, ref reference.Named, name string) error {
	login, err := e.access.Check(ctx, spec, ref)
	if refused, ok := errors.AsType[dockerapi.RefusedError](err); ok {
		return e.notGiven(ctx, spec, request{ref, name, login, "is on this machine for other repositories alone"}, refused.Unwrap())
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return nil
}

// pull pulls an image with what the build may show.
func (e *Engine) pull(ctx context.Context, spec engine.Spec, ref reference.Named, name, asked string) error {
	login, err := e.access.Registries.Login(ctx, spec, reference.Domain(ref))
	if err != nil {
		return fmt.Errorf("credentials for image %s: %w", name, err)
	}
	begin := time.Now()
	spec.Sayf("pulling image %s", name)
	spec.WaitsFor(engine.WaitImage, "pulling image "+name)
	defer spec.WaitsFor(engine.WaitOther, "")
	want := request{ref, name, login, "cannot be pulled"}
	if login.Own { // nobody else is to get it before it is known whose it is
		if _, err := e.access.Ask(ctx, ref, login); err != nil {
			return e.notGiven(ctx, spec, want, err)
		}
		if err := e.access.Announce(ctx, spec, ref, login); err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
	}
	options := client.ImagePullOptions{RegistryAuth: login.Auth}
	if asked != "" {
		options.Platforms = []ocispec.Platform{dockerapi.Platform(asked)}
	}
	stream, err := e.client.ImagePull(ctx, name, options)
	if err == nil {
		err = e.follow(ctx, spec, name, stream)
	}
	if err != nil {
		return e.notGiven(ctx, spec, want, login.Hide(err))
	}
	if login.Own {
		e.access.Prove(ref, login)
	}
	took := time.Since(begin).Round(100 * time.Millisecond)
	spec.Sayf("image %s pulled in %v", name, took)
	e.config.Log.InfoContext(ctx, "pulled", "image", name, "took", took)
	return nil
}

// request is what is asked of a registry.
type request struct {
	ref   reference.Named
	name  string // as people wrote it
	login dockerapi.Login
	so    string // what follows where the registry refuses it
}

// notGiven says why a registry, or the Docker engine, has not given an image.
func (e *Engine) notGiven(ctx context.Context, spec engine.Spec, want request, err error) error {
	name, host := want.name, reference.Domain(want.ref)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("pull image %s: %w", name, err)
	case dockerapi.Limited(err):
		return delayed(spec, time.Minute, 0, fmt.Errorf("image %s is not pulled yet, for %s limits how many are: %s; credentials raise that limit: %s",
			name, host, dockerapi.Plain(err), want.login.Advice(spec, e.config.ConfigFile)))
	case dockerapi.Unmatched(err):
		return e.unmatched(ctx, name, host, want.login.Auth)
	case dockerapi.Missing(err):
		return fault.Newf(fault.Invalid, "image %s %s: %s: %s has no such image", name, want.so, dockerapi.Plain(err), host)
	case dockerapi.Refused(err):
		return fault.Newf(fault.Invalid, "image %s %s: %s: %s refuses it; %s",
			name, want.so, dockerapi.Plain(err), host, want.login.Advice(spec, e.config.ConfigFile))
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
