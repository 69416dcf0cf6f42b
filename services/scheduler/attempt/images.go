package attempt

import (
	"context"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/scheduler/image"
	"github.com/forge-ci/forge/services/scheduler/image/gate"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

const (
	// imageBegins is how long the report may take that the step of an image has begun:
	// it comes by another stream.
	imageBegins = time.Minute
	// imageLooks is how often it is looked after, besides when there are news, whether
	// somebody still waits for an image.
	imageLooks = 5 * time.Second
)

// Images builds images; nil where this server cannot. An error of kind fault.Invalid lies
// in what was asked for, one of fault.Unavailable in what builds.
type Images interface {
	Build(ctx context.Context, r image.Request, files image.Files, log io.Writer) (image.Result, error)
	// LoadName is a new name for an image that is kept in the engine until Forget; "" where
	// images cannot be loaded.
	LoadName() string
	Forget(ctx context.Context, name string) error
}

// images are those that are being built here, one at a time of each attempt.
type images struct {
	Images
	gate     *gate.Gate
	mu       sync.Mutex
	building map[store.AttemptKey]bool
}

func (i *images) enter(of store.AttemptKey) (leave func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.building[of] {
		return nil, fault.New(fault.Invalid, "this attempt builds an image already")
	}
	i.building[of] = true
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.building, of)
	}, nil
}

// imageSteps has the steps of builds done that build images.
type imageSteps struct{ *Service }

func hasImages(b *store.Build) bool {
	return slices.ContainsFunc(b.ConfigJob().GetCommands(), func(c *configv1.Command) bool { return c.GetImage() != nil })
}

// imageOf is the image that a step of a build builds; nil for any other.
func imageOf(b *store.Build, number int32) *configv1.ImageStep {
	commands := b.ConfigJob().GetCommands()
	if number < 1 || int(number) > len(commands) {
		return nil
	}
	return commands[number-1].GetImage()
}

// cellOf is what the cell of a build's matrix has, by the names in the file.
func cellOf(b *store.Build) map[string]string {
	cell := map[string]string{}
	for _, value := range b.ConfigJob().GetMatrix() {
		cell[value.GetName()] = value.GetValue()
	}
	return cell
}

// plannedImage is what the runner has to know of it.
func plannedImage(b *store.Build, number int32, environment map[string]string) *schedulerv1.PlannedStep_ImageStep {
	step := imageOf(b, number)
	if step == nil {
		return nil
	}
	planned := &schedulerv1.PlannedStep_ImageStep{Output: step.GetOutput()}
	for _, text := range slices.Concat(step.GetTags(), slices.Sorted(maps.Values(step.GetArgs()))) {
		for _, found := range imageVariable.FindAllStringSubmatch(text, -1) {
			_, known := environment[found[1]]
			_, ofCell := cellOf(b)[found[1]]
			if !known && !ofCell && !slices.Contains(planned.GetVariables(), found[1]) {
				planned.Variables = append(planned.Variables, found[1])
			}
		}
	}
	return planned
}

// BuildImage has an image built for the runner whose step it is.
func (r runnerService) BuildImage(stream schedulerv1.RunnerService_BuildImageServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	begin := first.GetBegin()
	if begin == nil {
		return fault.New(fault.Invalid, "the first message is a Begin")
	}
	b, err := r.heldBy(stream.Context(), begin.GetRunnerId())
	if err != nil {
		return err
	}
	steps, step := imageSteps{r.service}, imageOf(b, begin.GetNumber())
	if step == nil {
		return fault.Newf(fault.Invalid, "step %d builds no image", begin.GetNumber())
	}
	if err := steps.canBuildImages(stream.Context(), b); err != nil {
		return err
	}
	leave, err := r.service.images.enter(store.AttemptKey{BuildID: b.GetId(), Number: b.GetAttempt()})
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(telemetry.WithTraceparent(stream.Context(), b.Traceparent))
	defer cancel(nil)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	begun := make(chan struct{})
	watching.Go(func() { cancel(steps.watchImage(ctx, b, begin, begun)) })
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-begun:
	}
	return steps.buildImage(ctx, b, begin, step, stream)
}

// watchImage looks after the step of an image: closes begun once the step has, and
// returns, while ctx lasts, why nobody may build it any more.
func (s imageSteps) watchImage(ctx context.Context, of *store.Build, begin *schedulerv1.BuildImageRequest_Begin, begun chan<- struct{}) error {
	changed, leave := s.store.Notifier.Subscribe(store.BuildTopic(of.GetId()), store.RunnerTopic(of.GetId()))
	defer leave()
	look := time.NewTicker(imageLooks)
	defer look.Stop()
	late := time.NewTimer(imageBegins)
	defer late.Stop()
	for {
		state, err := s.stateOfImage(ctx, of, begin)
		switch {
		case err != nil:
			return err
		case state == schedulerv1.Step_STATE_RUNNING && begun != nil:
			close(begun)
			begun = nil
			late.Stop()
		case state == schedulerv1.Step_STATE_RUNNING, state == schedulerv1.Step_STATE_PENDING && begun != nil:
		default:
			return fault.Newf(fault.Invalid, "step %d does not run", begin.GetNumber())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rpc.Stopping(ctx):
			return fault.New(fault.Unavailable, "the scheduler stops")
		case <-late.C:
			return fault.Newf(fault.Invalid, "step %d does not run", begin.GetNumber())
		case <-changed:
		case <-look.C:
		}
	}
}

// stateOfImage is how the step stands, as long as its attempt is the one that counts and
// nobody wants it to end.
func (s imageSteps) stateOfImage(ctx context.Context, of *store.Build, begin *schedulerv1.BuildImageRequest_Begin) (schedulerv1.Step_State, error) {
	pool := s.store.DB.Read()
	a, err := store.ReadAttempt(ctx, pool, of.GetId(), of.GetAttempt(), "")
	if err != nil {
		return 0, err
	}
	b, err := store.ReadBuild(ctx, pool, of.GetId(), "")
	if err != nil {
		return 0, err
	}
	if a.Ended || a.RunnerID != begin.GetRunnerId() || b.GetAttempt() != a.Number {
		return 0, attemptOver(a)
	}
	steps, err := store.Steps(ctx, pool, b)
	if err != nil {
		return 0, err
	}
	return steps[begin.GetNumber()-1].GetState(), nil
}

func (s imageSteps) buildImage(ctx context.Context, b *store.Build, begin *schedulerv1.BuildImageRequest_Begin, step *configv1.ImageStep, stream schedulerv1.RunnerService_BuildImageServer) error {
	files := newImageFiles(stream, step)
	defer files.close()
	log := imageLog{files}
	request, notices, err := s.imageRequest(ctx, b, step, begin.GetVariables())
	if err != nil {
		return err
	}
	for _, notice := range notices {
		if _, err := io.WriteString(log, "forge: "+notice+"\n"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// It ends with the stream, which its handler ends by returning.
	go files.receive(ctx, cancel)
	loading, err := s.toLoad(ctx, b, begin.GetNumber(), step)
	if err != nil {
		return err
	}
	request.Load = loading.Loaded
	built, err := s.images.Build(ctx, request, files, log)
	if err == nil {
		err = s.wasBuilt(ctx, loading, built)
	}
	switch {
	case err == nil:
		return files.send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Built_{
			Built: &schedulerv1.BuildImageResponse_Built{Reference: built.Reference(), Digest: built.Digest},
		}})
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); fault.KindOf(cause) != fault.Internal {
			return cause
		}
		return err
	case fault.Is(err, fault.Invalid), fault.Is(err, fault.Unavailable) && !files.used():
		return err
	}
	s.log.WarnContext(ctx, "image not built", "build", b.GetId(), "step", begin.GetNumber(), "error", err)
	return files.send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Failed{Failed: err.Error()}})
}

var (
	imageVariable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	// tagPart is what a variable of a runner may be within a tag: it changes neither the
	// registry nor the repository.
	tagPart = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
)

// imageRequest is what a step asks for, as far as its build may have it, and what the log
// says of the rest. told are variables by the runner's word.
func (s imageSteps) imageRequest(ctx context.Context, b *store.Build, step *configv1.ImageStep, told map[string]string) (r image.Request, notices []string, err error) {
	known, _, err := environmentOfBuild(ctx, s.Service, b)
	if err != nil {
		return r, nil, err
	}
	secrets, _, err := s.secrets.SecretsFor(ctx, b)
	if err != nil {
		return r, nil, err
	}
	maps.Copy(known, cellOf(b))
	fill := filler{known: known, told: told, hidden: b.ConfigJob().GetSecrets()}
	r = image.Request{
		Context: path.Clean(step.GetContext()), Dockerfile: dockerfile(step), Target: step.GetTarget(), Platforms: step.GetPlatforms(),
		Args: map[string]string{}, Secrets: map[string][]byte{}, Tier: s.contents.Tier(b), Gate: s.images.gate,
		Provenance: map[string]string{"repository": s.github + "/" + wording.FullName(b.GetRepository()), "commit": b.GetSha(), "build": b.GetUrl()},
	}
	for name, text := range step.GetArgs() {
		if r.Args[name], err = fill.text("args."+name, text, nil); err != nil {
			return r, nil, err
		}
	}
	for _, text := range step.GetTags() {
		tag, err := fill.text("tags", text, tagPart)
		if err != nil {
			return r, nil, err
		}
		r.Tags = append(r.Tags, tag)
	}
	for _, name := range step.GetSecrets() {
		if value, has := secrets[name]; has {
			r.Secrets[name] = []byte(value)
		} else {
			notices = append(notices, "image: the build does not get the secret "+name)
		}
	}
	if r.Push = step.GetPush() && ofRepository(b); step.GetPush() && !r.Push {
		notices = append(notices, "image: it is built and not pushed: only what was merged or pushed to the repository is")
	}
	r.Credentials = func(ctx context.Context, host string) (user, password string, err error) {
		return s.registries.Credentials(ctx, b, host)
	}
	return r, notices, nil
}

func dockerfile(step *configv1.ImageStep) string {
	if step.GetDockerfile() != "" {
		return step.GetDockerfile()
	}
	return path.Join(step.GetContext(), "Dockerfile")
}

// filler fills in variables: what the server knows counts, whatever the runner tells.
type filler struct {
	known, told map[string]string
	hidden      []string // names of secrets
}

// text is a text with its variables in it. bound is what those of the runner may be.
func (f filler) text(at, text string, bound *regexp.Regexp) (string, error) {
	var problem error
	filled := imageVariable.ReplaceAllStringFunc(text, func(hole string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(hole, "${"), "}")
		if value, known := f.known[name]; known {
			return value
		}
		value, set := f.told[name]
		switch {
		case problem != nil:
		case slices.Contains(f.hidden, name):
			problem = fault.Newf(fault.Invalid, "image.%s: ${%s} is a secret, which tags and arguments cannot hold", at, name)
		case !set:
			problem = fault.Newf(fault.Invalid, "image.%s: ${%s} is not set: a command before this step can write it to $FORGE_ENV", at, name)
		case bound != nil && !bound.MatchString(value):
			problem = fault.Newf(fault.Invalid, "image.%s: ${%s} is %q: a variable that a command has set can have letters, digits, and _ . - there", at, name, value)
		}
		return value
	})
	return filled, problem
}

// imageLog is the log of a step that builds an image.
type imageLog struct{ *imageFiles }

// Write implements io.Writer.
func (l imageLog) Write(text []byte) (int, error) {
	for part := range slices.Chunk(text, 31<<10) {
		if err := l.send(&schedulerv1.BuildImageResponse{Message: &schedulerv1.BuildImageResponse_Log{Log: part}}); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}
