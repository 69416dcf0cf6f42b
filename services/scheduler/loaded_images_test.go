package scheduler

import (
	"errors"
	"slices"
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// loading is a rig whose builds have a job that loads an image, and one that is run from it.
func loading(t *testing.T, r *rig, change ...func(*builder)) imaging {
	t.Helper()
	b := &builder{}
	for _, c := range change {
		c(b)
	}
	r.deps.Images = b
	r.start()
	return imaging{r, b}
}

// loads has a job build an image for others as its second step.
func loads(push bool) func(*configv1.Job) {
	return func(j *configv1.Job) {
		step := &configv1.ImageStep{Tags: []string{"registry.example/web"}, Load: true, Push: push, Output: "WEB"}
		j.Commands = []*configv1.Command{{Name: "make", Run: "make"}, {Name: "image", Image: step}}
		j.Outputs = []string{"WEB"}
	}
}

const loadedImage = "${NEEDS_BUILD_WEB}"

func fromImage(j *configv1.Job) {
	j.Image = loadedImage
	j.Services = map[string]*configv1.Sidecar{"web": {Image: loadedImage}, "db": {Image: "postgres:16"}}
}

// load plays the job that builds the image; its runner says something else of it.
func (r imaging) load(t *testing.T, id string) {
	t.Helper()
	u, token := r.atImage(t, id)
	if built, _, _, err := r.call(t, token, "runner-1", 2, nil).ends(); err != nil || built.GetReference() == "" {
		t.Fatalf("%v, %v", built, err)
	}
	claims := report(5)
	claims.Event = &schedulerv1.Report_Outputs{Outputs: &schedulerv1.Outputs{Values: map[string]string{"WEB": "evil.example/web"}}}
	u.send(exited(4, 2, 0), claims, over(6, schedulerv1.Ended_CAUSE_DONE))
	if err := u.refused(); err != nil {
		t.Fatal(err)
	}
	r.becomes(id, schedulerv1.Build_STATE_PASSED)
}

// forgets waits until the engine has none of the images any more.
func (r imaging) forgets(t *testing.T, names ...string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		r.wake()
		r.sweep()
		r.builder.mu.Lock()
		defer r.builder.mu.Unlock()
		for _, name := range names {
			if !slices.Contains(r.builder.forgotten, name) {
				return errors.New(name + " is in the engine still")
			}
		}
		return nil
	})
}

// The jobs of a build that need it are run from an image that another one has loaded, by
// the server's word alone; nobody else is, and it goes with its build, also where the
// scheduler was gone meanwhile.
func TestALoadedImageIsForItsBuildAlone(t *testing.T) {
	eachStopped(t, func(t *testing.T, bare *rig) {
		r := loading(t, bare)
		r.rig.config.set("head", ofJobs(job("build", loads(false)), job("use", needs("build"), fromImage), job("beside", fromImage),
			job("guess", func(j *configv1.Job) {
				j.Services = map[string]*configv1.Sidecar{"web": {Image: "docker.io/forge-load/test/1:1"}}
			})))
		id := r.built(opened(1, "head"))
		if b := r.becomes(store.JobID(id, 3), schedulerv1.Build_STATE_ERRORED); !strings.Contains(b.GetMessage(), "image "+loadedImage+": no job that this one needs has built it") {
			t.Errorf("a job that does not need it: %s", b.GetMessage())
		}
		if b := r.becomes(store.JobID(id, 4), schedulerv1.Build_STATE_ERRORED); !strings.Contains(b.GetMessage(), "forge-load/test/1:1 is not for this build") {
			t.Errorf("a job that names it: %s", b.GetMessage())
		}
		r.load(t, store.JobID(id, 1))
		spec := r.spec(store.JobID(id, 2), 1)
		name := r.builder.asked[0].Load
		if spec.Image != name || !slices.Equal(spec.Loaded, []string{name, name}) || spec.Sidecars[1].Image != name || spec.Sidecars[0].Image != "postgres:16" {
			t.Errorf("it is run from %q, loaded %q, services %v; want %s", spec.Image, spec.Loaded, spec.Sidecars, name)
		}
		r.stop()
		r.start()
		r.sweep()
		if len(r.builder.forgotten) > 0 {
			t.Errorf("forgotten while the build runs: %q", r.builder.forgotten)
		}
		r.pass(store.JobID(id, 2))
		r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		r.forgets(t, name)
		images, err := store.BuiltImages(t.Context(), r.service.store, id)
		if err != nil || len(images) > 0 {
			t.Errorf("known still: %v, %v", images, err)
		}
	})
}

// What was pushed as well stays in its registry: a repeated build runs from there, where
// the job that has pushed it is not run again. What was loaded alone is loaded again.
func TestRepeatedJobsHaveTheImageThatTheyNeed(t *testing.T) {
	eachStopped(t, func(t *testing.T, bare *rig) {
		r := loading(t, bare)
		jobs := ofJobs(job("build", loads(false)), job("use", needs("build"), fromImage))
		r.rig.config.set("head", jobs)
		id := r.built(opened(1, "head"))
		r.load(t, store.JobID(id, 1))
		r.fail(store.JobID(id, 2), 1, 1)
		r.becomes(id, schedulerv1.Build_STATE_FAILED)
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id, FailedOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		r.load(t, store.JobID(again.GetBuild().GetId(), 1))
		name := r.builder.asked[1].Load
		kittest.Want(t, r.spec(store.JobID(again.GetBuild().GetId(), 2), 1).Image, name, "image of the job that is repeated")
		r.pass(store.JobID(again.GetBuild().GetId(), 2))
		r.becomes(again.GetBuild().GetId(), schedulerv1.Build_STATE_PASSED)
		r.forgets(t, r.builder.asked[0].Load, name)

		r.rig.config.set("merge", ofJobs(job("build", func(j *configv1.Job) {
			loads(true)(j)
			j.Commands[1].Image.Load = false
		}), job("use", needs("build"), fromImage)))
		deploy := r.built(mergedInto(1, "main", "merge"))
		r.load(t, store.JobID(deploy, 1))
		const pushed = "registry.example/web@sha256:abc"
		spec := r.spec(store.JobID(deploy, 2), 1)
		if spec.Image != pushed || len(spec.Loaded) > 0 {
			t.Errorf("it is run from %q, loaded %q", spec.Image, spec.Loaded)
		}
		r.fail(store.JobID(deploy, 2), 1, 1)
		r.becomes(deploy, schedulerv1.Build_STATE_FAILED)
		if again, err = r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: deploy, FailedOnly: true}); err != nil {
			t.Fatal(err)
		}
		kittest.Want(t, r.spec(store.JobID(again.GetBuild().GetId(), 2), 1).Image, pushed, "image that was pushed before")
	})
}

// Where images cannot be loaded, no job of a build runs that has one to load.
func TestWhereImagesCannotBeLoadedNothingRuns(t *testing.T) {
	r := loading(t, sqliteRig(t), func(b *builder) { b.cannotLoad = true })
	r.rig.config.set("head", ofJobs(job("lint"), job("build", needs("lint"), loads(false))))
	id := r.built(opened(1, "head"))
	b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
	lint := r.build(store.JobID(id, 1))
	if !strings.Contains(lint.GetMessage(), "load: true") || !strings.Contains(lint.GetMessage(), "push the image") || len(r.engine.starts) > 0 {
		t.Errorf("%s: %s; started %v", b.GetMessage(), lint.GetMessage(), r.engine.starts)
	}
}
