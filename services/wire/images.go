package wire

import (
	"context"
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
