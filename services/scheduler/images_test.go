package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/attempt"
	"github.com/forge-ci/forge/services/scheduler/image"
)

// builder is in the place of BuildKit: it notes what it is asked for, and does what a
// test says.
type builder struct {
	mu    sync.Mutex
	asked []image.Request
	build func(ctx context.Context, r image.Request, files image.Files, log io.Writer) (image.Result, error)

	cannotLoad bool
	names      int
	forgotten  []string
}

func (b *builder) LoadName() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cannotLoad {
		return ""
	}
	b.names++
	return fmt.Sprintf("forge-load/test/%d:1", b.names)
}

func (b *builder) Forget(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgotten = append(b.forgotten, name)
	return nil
}

func (b *builder) Build(ctx context.Context, r image.Request, files image.Files, log io.Writer) (image.Result, error) {
	b.mu.Lock()
	b.asked = append(b.asked, r)
	build := b.build
	b.mu.Unlock()
	if build != nil {
		return build(ctx, r, files, log)
	}
	_, err := io.WriteString(log, "#1 CACHED\n")
	if r.Load != "" && !r.Push {
		return image.Result{Name: r.Load, Digest: "sha256:abc", Loaded: r.Load}, err
	}
	return image.Result{Name: "registry.example/web", Digest: "sha256:abc", Loaded: r.Load}, err
}

func (b *builder) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

// imaging is a rig whose builds build an image as their second step.
type imaging struct {
	*rig
	builder *builder
}

func newImaging(t *testing.T) imaging {
	t.Helper()
	r, b := sqliteRig(t), &builder{}
	r.deps.Images, r.deps.GitHubURL = b, "https://github.example"
	r.start()
	return imaging{r, b}
}

// config has a step that builds an image, after a command and before another one.
func (r imaging) config(sha string) {
	step := &configv1.ImageStep{
		Context: "web", Args: map[string]string{"SHA": "${FORGE_SHA}", "FLAVOUR": "${FLAVOUR}"},
		Tags: []string{"registry.example/web:${FORGE_SHA}-${FLAVOUR}"}, Push: true, Output: "WEB_IMAGE",
	}
	commands := []*configv1.Command{{Name: "make", Run: "make"}, {Name: "image", Image: step}, {Name: "after", Run: "true"}}
	r.rig.config.set(sha, valid(&configv1.BuildConfig{
		Image: "busybox", Execute: &configv1.Pipeline{Commands: commands}, DeployStaging: &configv1.Pipeline{Commands: commands},
	}))
}

// imageCall is one call of BuildImage.
type imageCall struct {
	stream schedulerv1.RunnerService_BuildImageClient
	leave  context.CancelFunc
}

func (r imaging) call(t *testing.T, token, runner string, number int32, variables map[string]string) imageCall {
	t.Helper()
	ctx, leave := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), attempt.TokenHeader, token), 6*patience)
	t.Cleanup(leave)
	stream, err := r.runners.BuildImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&schedulerv1.BuildImageRequest{Message: &schedulerv1.BuildImageRequest_Begin_{Begin: &schedulerv1.BuildImageRequest_Begin{
		RunnerId: runner, Number: number, Variables: variables,
	}}}) // Recv says what is wrong
	return imageCall{stream, leave}
}

// ends reads a call to its end.
func (c imageCall) ends() (built *schedulerv1.BuildImageResponse_Built, log, failed string, err error) {
	for {
		message, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return built, log, failed, nil
		}
		if err != nil {
			return nil, log, failed, err
		}
		log += string(message.GetLog())
		failed += message.GetFailed()
		if message.GetBuilt() != nil {
			built = message.GetBuilt()
		}
	}
}

// atImage plays a runner up to its image step.
func (r imaging) atImage(t *testing.T, id string) (u *runner, token string) {
	t.Helper()
	token = r.spec(id, 1).Runner.Token
	u = r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", Version: "test", MasksSecrets: true, HeedsJobs: true, HasSource: true, BuildsImages: true})
	u.recv()
	u.plan = u.recv().GetPlan()
	u.send(began(1, 1), exited(2, 1, 0), began(3, 2))
	u.acked(3)
	return u, token
}

// What is merged is pushed, from a tier of its own, with the server's values; a pull
// request of the same file is built alone.
func TestImageStepIsOfTheServersPlan(t *testing.T) {
	r := newImaging(t)
	r.config("head")
	test := r.built(opened(1, "head"))
	u, token := r.atImage(t, test)
	kittest.Want(t, strings.Join(u.plan.GetSteps()[1].GetImage().GetVariables(), " "), "FLAVOUR", "variables that the runner tells")
	told := map[string]string{"FLAVOUR": "plain", "FORGE_SHA": "another", "FORGE_ACTION": "deploy-production"}
	built, log, _, err := r.call(t, token, "runner-1", 2, told).ends()
	if err != nil || built.GetReference() != "registry.example/web@sha256:abc" || !strings.Contains(log, "built and not pushed") || !strings.Contains(log, "#1 CACHED\n") {
		t.Fatalf("%v, %v, log %q", built, err, log)
	}
	r.config("merge")
	deploy := r.built(mergedInto(1, "main", "merge"))
	_, token = r.atImage(t, deploy)
	if _, _, _, err := r.call(t, token, "runner-1", 2, told).ends(); err != nil {
		t.Fatal(err)
	}
	proposed, merged := r.builder.asked[0], r.builder.asked[1]
	if proposed.Push || !merged.Push {
		t.Errorf("pushed: a pull request %v, a deploy %v", proposed.Push, merged.Push)
	}
	kittest.Want(t, proposed.Tier+" "+merged.Tier, "7/pull/1 7/environment/staging", "tiers")
	kittest.Want(t, merged.Tags[0], "registry.example/web:merge-plain", "tag")
	kittest.Want(t, merged.Args["SHA"]+" "+merged.Args["FLAVOUR"], "merge plain", "arguments")
	kittest.Want(t, merged.Context+" "+merged.Dockerfile, "web web/Dockerfile", "paths")
	kittest.Want(t, merged.Provenance["repository"]+" "+merged.Provenance["commit"], "https://github.example/Acme/shop merge", "provenance")
}

// A runner that claims more than its plan gives it is refused, and nothing is built.
func TestRunnerClaimsMoreOfAnImageThanItMay(t *testing.T) {
	r := newImaging(t)
	r.config("head")
	id := r.built(opened(1, "head"))
	u, token := r.atImage(t, id)
	plain := map[string]string{"FLAVOUR": "plain"}
	for what, c := range map[string]struct {
		token, runner string
		number        int32
		variables     map[string]string
		want          codes.Code
	}{
		"another runner":           {token, "runner-2", 2, plain, codes.FailedPrecondition},
		"no token":                 {"nonsense", "runner-1", 2, plain, codes.Unauthenticated},
		"a step with a command":    {token, "runner-1", 1, plain, codes.InvalidArgument},
		"a step that there is not": {token, "runner-1", 9, plain, codes.InvalidArgument},
		"no step":                  {token, "runner-1", -1, plain, codes.InvalidArgument},
		"another repository":       {token, "runner-1", 2, map[string]string{"FLAVOUR": "x/y:z"}, codes.InvalidArgument},
		"another registry":         {token, "runner-1", 2, map[string]string{"FLAVOUR": "@evil.example/x"}, codes.InvalidArgument},
		"nothing of a variable":    {token, "runner-1", 2, nil, codes.InvalidArgument},
	} {
		if _, _, _, err := r.call(t, c.token, c.runner, c.number, c.variables).ends(); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	u.send(exited(4, 2, 0))
	u.acked(4)
	if _, _, _, err := r.call(t, token, "runner-1", 2, plain).ends(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a step that has ended: %v", err)
	}
	kittest.Want(t, r.builder.count(), 0, "images that were built")
}

// A build without the means to build an image ends before anything of it runs.
func TestImageStepNeedsABuilderAndARunnerThatKnowsIt(t *testing.T) {
	without := imaging{sqliteRig(t), nil}
	without.start()
	without.config("head")
	lacking := without.built(opened(1, "head"))
	if b := without.becomes(lacking, schedulerv1.Build_STATE_ERRORED); !strings.Contains(b.GetMessage(), "FORGE_BUILDKIT_URL") || len(without.engine.starts) > 0 {
		t.Errorf("%s; started %v", b.GetMessage(), without.engine.starts)
	}
	r := newImaging(t)
	r.config("head")
	id := r.built(opened(1, "head"))
	u := r.stream(r.spec(id, 1).Runner.Token, &schedulerv1.Hello{RunnerId: "runner-1", MasksSecrets: true, HeedsJobs: true, HasSource: true})
	if err := u.refused(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("an old forgexec: %v", err)
	}
	b := r.becomes(id, schedulerv1.Build_STATE_ERRORED)
	kittest.Want(t, b.GetReason(), schedulerv1.Build_REASON_NOT_RUNNABLE, "reason")
}

// Files cross the stream as they are asked for; a build that is cancelled, or whose
// runner goes, is not built on.
func TestImageEndsWithItsRunner(t *testing.T) {
	r := newImaging(t)
	ended := make(chan error, 1)
	r.builder.build = func(ctx context.Context, _ image.Request, files image.Files, _ io.Writer) (image.Result, error) {
		err := files.DiffCopy(ctx, image.Want{Dir: "context", FollowPaths: []string{"app"}}, quiet{func() context.Context { return ctx }})
		ended <- err
		return image.Result{}, fault.Newf(fault.Unavailable, "files: %w", err)
	}
	r.config("head")
	id := r.built(opened(1, "head"))
	_, token := r.atImage(t, id)
	call := r.call(t, token, "runner-1", 2, map[string]string{"FLAVOUR": "plain"})
	var open *schedulerv1.OpenFiles
	for open == nil {
		message, err := call.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		open = message.GetOpen()
	}
	kittest.Want(t, open.GetFolder()+" "+strings.Join(open.GetFollow(), " "), "web app", "what is asked for")
	second := r.call(t, token, "runner-1", 2, nil)
	if _, _, _, err := second.ends(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("two at once: %v", err)
	}
	call.leave()
	if err := <-ended; err == nil {
		t.Error("the image is built on without its runner")
	}
}

// quiet is a BuildKit that asks for nothing more.
type quiet struct{ context func() context.Context }

func (q quiet) Context() context.Context { return q.context() }
func (q quiet) SendMsg(message any) error {
	_, _ = message.(*types.Packet)
	return nil
}

func (q quiet) RecvMsg(any) error {
	<-q.context().Done()
	return q.context().Err()
}

// What lies in the files fails the step; what does not ends the build, and is repeated
// where the file asks for that.
func TestImageThatCannotBeBuilt(t *testing.T) {
	r := newImaging(t)
	plain := map[string]string{"FLAVOUR": "plain"}
	r.config("head")
	_, token := r.atImage(t, r.built(opened(1, "head")))
	r.builder.build = func(_ context.Context, _ image.Request, _ image.Files, log io.Writer) (image.Result, error) {
		_, _ = io.WriteString(log, "building\n")
		return image.Result{}, fault.New(fault.Invalid, "Dockerfile, line 3: no such file")
	}
	if _, _, _, err := r.call(t, token, "runner-1", 2, plain).ends(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a wrong Dockerfile: %v", err)
	}
	r.builder.build = func(_ context.Context, _ image.Request, _ image.Files, log io.Writer) (image.Result, error) {
		_, _ = io.WriteString(log, "building\n")
		return image.Result{}, fault.New(fault.Exhausted, "registry.example: too many requests")
	}
	if _, _, failed, err := r.call(t, token, "runner-1", 2, plain).ends(); err != nil || !strings.Contains(failed, "too many requests") {
		t.Errorf("a registry that is busy: %q, %v", failed, err)
	}
}
