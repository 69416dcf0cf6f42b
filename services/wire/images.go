package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/image"
)

// images is what builds images: the BuildKit that is set, else the Docker engine's own;
// nil where there is neither. alone: no other scheduler has this instance.
func images(ctx context.Context, s SchedulerSettings, containers engine.Engine, instance string, alone bool, tel *telemetry.Telemetry) (attempt.Images, error) {
	var docker *client.Client
	if of, ok := containers.(interface{ Docker() *client.Client }); ok {
		docker = of.Docker()
	}
	if docker == nil && s.Image.BuildKitURL == "" {
		return nil, nil //nolint:nilnil // there is none, as scheduler.Deps has it
	}
	dir := filepath.Join(s.DataDir, "images")
	if err := os.RemoveAll(dir); err != nil { // what a Forge that was killed has left
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	builder, err := image.New(image.Config{
		Docker: docker, URL: s.Image.BuildKitURL, TLS: image.TLS{CA: s.TLSCA, Cert: s.TLSCert, Key: s.TLSKey}, Instance: instance, Private: s.Image.Networks, Scanner: s.Image.Scanner, Dir: dir, Log: tel.Log,
	})
	if err != nil || !alone {
		return builder, err
	}
	if err := builder.ForgetUnfinished(ctx); err != nil {
		tel.Log.WarnContext(ctx, "images that a Forge left which was killed stay in the Docker engine", "error", err)
	}
	return builder, nil
}

// forgetImages removes all that a Forge with this instance has built and loaded, of which
// nobody builds or runs anything any more.
func forgetImages(ctx context.Context, containers engine.Engine, instance string) error {
	of, ok := containers.(interface{ Docker() *client.Client })
	if !ok {
		return nil
	}
	builder, err := image.New(image.Config{Docker: of.Docker(), Instance: instance})
	if err != nil {
		return err
	}
	defer builder.Close()
	left, err := builder.Leftovers(ctx)
	for _, name := range left {
		err = errors.Join(err, builder.Forget(ctx, name))
	}
	return err
}

// unpushed builds images and pushes none: what is in a working tree, nobody has pushed.
type unpushed struct{ attempt.Images }

// Build implements attempt.Images.
func (u unpushed) Build(ctx context.Context, r image.Request, files image.Files, log io.Writer) (image.Result, error) {
	if r.Push {
		r.Push = false
		if _, err := io.WriteString(log, "forge: image: it is built and not pushed: a working tree is not what was pushed to the repository\n"); err != nil {
			return image.Result{}, err
		}
	}
	return u.Images.Build(ctx, r, files, log)
}
