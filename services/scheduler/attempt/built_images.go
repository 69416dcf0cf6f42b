package attempt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/image"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// forgetsAtOnce is how many loaded images one sweep forgets.
const forgetsAtOnce = 20

func loadsImages(b *store.Build) bool {
	return slices.ContainsFunc(b.ConfigJob().GetCommands(), func(c *configv1.Command) bool { return c.GetImage().GetLoad() })
}

// canBuildImages refuses a build that has image steps, in whichever of its jobs, which this
// server cannot do.
func (s imageSteps) canBuildImages(ctx context.Context, b *store.Build) error {
	builds, loads := s.images.Images != nil, s.images.Images != nil && s.images.LoadName() != ""
	if builds && loads {
		return nil
	}
	all := []*store.Build{b}
	if b.IsJob() {
		var err error
		if all, err = store.JobsOf(ctx, s.store.DB.Read(), b.GetPartOf(), ""); err != nil {
			return sqldb.Kind(err)
		}
	}
	switch {
	case !builds && slices.ContainsFunc(all, hasImages):
		return fault.New(fault.Invalid, "this build has a step that builds an image, and this server has nothing that builds images: "+
			"it takes the Docker engine (FORGE_ENGINE=docker), or the address of a BuildKit (FORGE_BUILDKIT_URL)")
	case !loads && slices.ContainsFunc(all, loadsImages):
		return fault.New(fault.Invalid, "this build has an image step with load: true, and this server cannot load images for other jobs: "+
			"it takes the Docker engine with its own BuildKit (FORGE_ENGINE=docker, and no FORGE_BUILDKIT_URL); elsewhere push the image, and the jobs use it from its registry")
	}
	return nil
}

// fromNeeds puts images of the jobs that a job needs in the place of ${NEEDS_JOB_OUTPUT}.
// What it stands for is what this server has built, whatever the runner says of it; by its
// name nobody gets an image of another build.
func (s imageSteps) fromNeeds(ctx context.Context, b *store.Build, spec *engine.Spec) error {
	names := []*string{&spec.Image}
	for i := range spec.Sidecars {
		names = append(names, &spec.Sidecars[i].Image)
	}
	for _, name := range names { // they are random; who knows one all the same has it from elsewhere
		if image.IsForges(*name) {
			return fault.Newf(fault.Invalid, "image %s is not for this build: what is loaded is used by jobs of the same build that need its job, as ${NEEDS_JOB_OUTPUT}", *name)
		}
	}
	names = slices.DeleteFunc(names, func(name *string) bool { return !strings.HasPrefix(*name, "${") })
	if len(names) == 0 {
		return nil
	}
	built, err := s.neededImages(ctx, b)
	if err != nil {
		return err
	}
	for _, name := range names {
		found, known := built[strings.TrimSuffix(strings.TrimPrefix(*name, "${"), "}")]
		switch {
		case !known:
			return fault.Newf(fault.Invalid, "image %s: no job that this one needs has built it", *name)
		case found.Loaded != "":
			*name = found.Loaded
			spec.Loaded = append(spec.Loaded, found.Loaded)
		case found.Pushed != "":
			*name = found.Pushed
		default:
			return fault.Newf(fault.Invalid, "image %s: it was neither pushed nor loaded; what is not merged is never pushed, and needs load: true", *name)
		}
	}
	return nil
}

// neededImages are those by the variable that a job sees each as.
func (s imageSteps) neededImages(ctx context.Context, b *store.Build) (map[string]store.BuiltImage, error) {
	all := map[string]store.BuiltImage{}
	if !b.IsJob() {
		return all, nil
	}
	jobs, err := store.JobsOf(ctx, s.store.DB.Read(), b.GetPartOf(), "")
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	images, err := store.BuiltImages(ctx, s.store, b.GetPartOf())
	if err != nil {
		return nil, err
	}
	for _, job := range jobs {
		if !slices.Contains(b.GetNeeds(), job.ConfigJob().GetName()) {
			continue
		}
		for i, command := range job.ConfigJob().GetCommands() {
			step := command.GetImage()
			if step.GetOutput() == "" || !step.GetLoad() && !step.GetPush() || !store.Ended(job.GetState()) {
				continue
			}
			var found store.BuiltImage
			if at := slices.IndexFunc(images, func(one store.BuiltImage) bool {
				return one.BuildID == job.GetId() && one.Attempt == job.GetAttempt() && int(one.Step) == i+1
			}); at >= 0 {
				found = images[at]
			}
			all["NEEDS_"+variableOf(job.ConfigJob().GetName())+"_"+step.GetOutput()] = found
		}
	}
	return all, nil
}

// toLoad notes an image that a step of the attempt is about to load.
func (s imageSteps) toLoad(ctx context.Context, b *store.Build, number int32, step *configv1.ImageStep) (store.BuiltImage, error) {
	loading := store.BuiltImage{BuildID: b.GetId(), Attempt: b.GetAttempt(), Step: number, Output: step.GetOutput()}
	if !step.GetLoad() {
		return loading, nil
	}
	loading.Loaded = s.images.LoadName()
	return loading, s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return store.NoteImage(ctx, t, loading) })
}

// wasBuilt stores what became of it.
func (s imageSteps) wasBuilt(ctx context.Context, one store.BuiltImage, built image.Result) error {
	if built.Digest != "" && built.Name != "" && built.Name != built.Loaded {
		one.Pushed = built.Reference()
	}
	if one.Loaded == "" && one.Pushed == "" {
		return nil
	}
	there := false
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) (err error) {
		there, err = store.SettleImage(ctx, t, one)
		return err
	})
	if err != nil || there {
		return err
	}
	return errors.Join(errors.New("the build has ended meanwhile"), s.images.Forget(ctx, one.Loaded))
}

// forgetImages removes loaded images from the engine that no build needs any more.
func (s imageSteps) forgetImages(ctx context.Context) error {
	if s.images.Images == nil || s.images.LoadName() == "" {
		return nil
	}
	left, err := store.UnneededImages(ctx, s.store, forgetsAtOnce)
	if err != nil {
		return fmt.Errorf("loaded images: %w", err)
	}
	var all error
	for _, one := range left {
		err := s.images.Forget(ctx, one.Loaded)
		if err == nil {
			err = s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error { return store.ForgetImage(ctx, t, one) })
		}
		all = errors.Join(all, err)
	}
	return all
}
