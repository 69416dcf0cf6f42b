package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	wants := wanted{Engine: e, spec: spec, ref: ref, name: name, asked: asked}
	// The whole name, since a short one can be the id of an image that is somebody else's.
	whole := reference.TagNameOnly(ref).String()
	image, err := e.client.ImageInspect(ctx, whole)
	if err != nil && !errdefs.IsNotFound(err) {
		return image, fmt.Errorf("inspect image %s: %w", name, err)
	}
	switch loaded := slices.Contains(spec.Loaded, name); {
	case loaded && err != nil:
		return image, fault.Newf(fault.Invalid, "image %s, which this build has loaded, is not in the Docker engine any more: it was removed there", name)
	case loaded:
	case err != nil || e.config.Pull == PullAlways || asked != "" && platform(image) != asked:
		if err := wants.pull(ctx); err != nil {
			return image, err
		}
		if image, err = e.client.ImageInspect(ctx, whole); err != nil {
			return image, fmt.Errorf("inspect image %s: %w", name, err)
		}
	default:
		if err := wants.may(ctx); err != nil {
			return image, err
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

// wanted is an image that a build wants.
type wanted struct {
	*Engine
	spec  engine.Spec
	ref   reference.Named
	name  string // as people wrote it
	asked string // the platform; "" is any
}

// may is nil where the build may have the image that is there.
func (w wanted) may(ctx context.Context) error {
	login, err := w.access.Check(ctx, w.spec, w.ref)
	if refused, ok := errors.AsType[dockerapi.RefusedError](err); ok {
		return w.notGiven(ctx, login, "is on this machine for other repositories alone", refused.Unwrap())
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", w.name, err)
	}
	return nil
}

// pull pulls the image with what the build may show.
func (w wanted) pull(ctx context.Context) error {
	login, err := w.access.Registries.Login(ctx, w.spec, reference.Domain(w.ref))
	if err != nil {
		return fmt.Errorf("credentials for image %s: %w", w.name, err)
	}
	begin := time.Now()
	w.spec.Sayf("pulling image %s", w.name)
	w.spec.WaitsFor(engine.WaitImage, "pulling image "+w.name)
	defer w.spec.WaitsFor(engine.WaitOther, "")
	const so = "cannot be pulled"
	if login.Own { // its owner is known before it is there
		if _, err := w.access.Ask(ctx, w.ref, login); err != nil {
			return w.notGiven(ctx, login, so, err)
		}
		if err := w.access.Announce(ctx, w.spec, w.ref, login); err != nil {
			return fmt.Errorf("image %s: %w", w.name, err)
		}
	}
	options := client.ImagePullOptions{RegistryAuth: login.Auth}
	if w.asked != "" {
		options.Platforms = []ocispec.Platform{dockerapi.Platform(w.asked)}
	}
	stream, err := w.client.ImagePull(ctx, w.name, options)
	if err == nil {
		err = w.follow(ctx, stream)
	}
	if err != nil {
		return w.notGiven(ctx, login, so, login.Hide(err))
	}
	if login.Own {
		w.access.Prove(w.ref, login)
	}
	took := time.Since(begin).Round(100 * time.Millisecond)
	w.spec.Sayf("image %s pulled in %v", w.name, took)
	w.config.Log.InfoContext(ctx, "pulled", "image", w.name, "took", took)
	return nil
}

// notGiven says why a registry, or the Docker engine, has not given the image; so is what
// it is where the registry will not.
func (w wanted) notGiven(ctx context.Context, login dockerapi.Login, so string, err error) error {
	host := reference.Domain(w.ref)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("pull image %s: %w", w.name, err)
	case dockerapi.Limited(err):
		return delayed(w.spec, time.Minute, 0, fmt.Errorf("image %s is not pulled yet, for %s limits how many are: %s; credentials raise that limit: %s",
			w.name, host, dockerapi.Plain(err), login.Advice(w.spec, w.config.ConfigFile)))
	case dockerapi.Unmatched(err):
		return w.unmatched(ctx, login)
	case dockerapi.Missing(err):
		return fault.Newf(fault.Invalid, "image %s %s: %s: %s has no such image", w.name, so, dockerapi.Plain(err), host)
	case dockerapi.Refused(err):
		return fault.Newf(fault.Invalid, "image %s %s: %s: %s refuses it; %s",
			w.name, so, dockerapi.Plain(err), host, login.Advice(w.spec, w.config.ConfigFile))
	case passing(full(err)):
		return full(err)
	}
	// What remains is a registry that is away, or the Docker engine itself.
	err = fmt.Errorf("pull image %s: %w", w.name, err)
	if _, away := w.client.Ping(ctx, client.PingOptions{}); away != nil {
		return err
	}
	return trouble{error: fmt.Errorf("%s does not answer as a registry should: %w", host, err)}
}

// unmatched says for which platforms the registry has an image that it has for none
// of the Docker engine's.
func (w wanted) unmatched(ctx context.Context, login dockerapi.Login) error {
	has := "others alone"
	if found, err := w.access.Ask(ctx, w.ref, login); err == nil && len(found.Platforms) > 0 {
		has = strings.Join(dockerapi.Platforms(found.Platforms), ", ")
	}
	return fault.Newf(fault.Invalid, "image %s cannot be pulled: %s has it for %s, builds run on %s here", w.name, reference.Domain(w.ref), has, w.forgexec.platform)
}

// follow reads what Docker tells of a pull and says in the build's log, now and
// then, how far it is.
func (w wanted) follow(ctx context.Context, stream client.ImagePullResponse) error {
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
		if time.Since(said) < w.config.ProgressEvery {
			continue
		}
		said = time.Now()
		var got, total int64
		for _, layer := range layers {
			got, total = got+layer.Current, total+layer.Total
		}
		text := fmt.Sprintf("pulling image %s: %s of %s", w.name, dockerapi.Size(got), dockerapi.Size(total))
		w.spec.Sayf("%s", text)
		w.spec.WaitsFor(engine.WaitImage, text)
	}
	return nil
}

// delayed says in the build's log that Start is asked again, and is the error for
// that.
func delayed(spec engine.Spec, pause, within time.Duration, err error) error {
	spec.Sayf("%v; trying again in %v", err, pause)
	return &engine.DelayError{Err: err, Pause: pause, Within: within}
}
