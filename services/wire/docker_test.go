package wire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
)

// dockerPatience is how long anything with containers may take on a slow machine.
const dockerPatience = 3 * time.Minute

// dockerWorld is a world whose Forge runs builds in containers.
type dockerWorld struct {
	*world
	api *client.Client
}

// newDockerWorld has a repository with the files that config returns for an image
// of busybox, which as a service greets at port 7000. host is where the Docker engine is, "" for the one of this machine.
func newDockerWorld(t testing.TB, host string, config func(image string) map[string]string, args ...string) *dockerWorld {
	t.Helper()
	api := kittest.Docker(t, host)
	image := kittest.Image(t, api, "EXPOSE 7000", `CMD ["nc", "-ll", "-p", "7000", "-e", "echo", "nice to meet you"]`)
	t.Cleanup(func() { kittest.RemoveImage(context.WithoutCancel(t.Context()), t, api, image) })
	w := &dockerWorld{world: newWorld(t, config(image)), api: api}
	w.patience = dockerPatience
	if host != "" {
		w.env = append(w.env, "DOCKER_HOST="+host)
	}
	t.Cleanup(func() { w.nothingIsLeft(t) })
	w.lay(t, deployment{})
	forge := w.process("forge")
	forge.args = append(append(forge.args, "--engine=docker"), args...)
	w.begin(t, forge)
	w.awaitUp(t)
	w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
	return w
}

// nothingIsLeft looks, when Forge has stopped, for what builds left on the Docker
// engine, and removes it.
func (w *dockerWorld) nothingIsLeft(t testing.TB) {
	ctx := context.WithoutCancel(t.Context())
	mine := w.mine(ctx, t)
	containers, err := w.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers.Items {
		t.Errorf("left behind: container %s (%s)", c.Names, c.State)
		_, _ = w.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	networks, err := w.api.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		t.Error(err)
	}
	if len(containers.Items)+len(networks.Items) > 0 {
		t.Logf("Forge said:\n%s", w.process("forge").output.String())
	}
	for _, n := range networks.Items {
		_, err := w.api.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		t.Errorf("left behind: network %s; to remove it: %v", n.Name, err)
	}
}

// mine is what this Forge has on the Docker engine, for builds and for none yet.
func (w *dockerWorld) mine(ctx context.Context, t testing.TB) client.Filters {
	t.Helper()
	db, err := sqldb.Open(ctx, sqldb.Config{Dir: w.dir + "/forge-data", Room: "scheduler", Migrations: scheduler.Migrations()})
	must(t, err)
	defer func() { _ = db.Close() }()
	instance, err := scheduler.Instance(ctx, db)
	must(t, err)
	return client.Filters{}.Add("label", "forge.instance="+instance)
}

// idle waits until Forge has removed what all builds had: what is left waits for others.
func (w *dockerWorld) idle(t testing.TB) {
	t.Helper()
	mine := w.mine(t.Context(), t)
	kittest.Eventually(t, dockerPatience, func() error {
		containers, err := w.api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: mine})
		if err != nil {
			return err
		}
		networks, err := w.api.NetworkList(t.Context(), client.NetworkListOptions{Filters: mine})
		if err != nil {
			return err
		}
		for _, c := range containers.Items {
			if !strings.HasPrefix(c.Names[0], "/forge_waiting_") {
				return fmt.Errorf("there is container %s still", c.Names[0])
			}
		}
		if len(networks.Items) > len(containers.Items) {
			return fmt.Errorf("there are %d networks still", len(networks.Items))
		}
		return nil
	})
}

// cleared waits until Forge has removed what builds had.
func (w *dockerWorld) cleared(t testing.TB, builds ...string) {
	t.Helper()
	for _, build := range builds {
		mine := client.Filters{}.Add("name", "^/?forge-"+build+"-") // labels are of what was made for it alone
		kittest.Eventually(t, dockerPatience, func() error {
			containers, err := w.api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: mine})
			if err != nil {
				return err
			}
			networks, err := w.api.NetworkList(t.Context(), client.NetworkListOptions{Filters: mine})
			if err == nil && len(containers.Items)+len(networks.Items) > 0 {
				err = fmt.Errorf("of build %s there are %d containers and %d networks", build, len(containers.Items), len(networks.Items))
			}
			return err
		})
	}
}

// newest is the build that was made last. Where a deploy has passed, that may be a
// promotion's.
func (w *dockerWorld) newest(t testing.TB) *schedulerv1.Build {
	t.Helper()
	var found *schedulerv1.Build
	builds := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler"))
	kittest.Eventually(t, dockerPatience, func() error {
		all, err := builds.ListBuilds(asAdmin(t.Context()), &schedulerv1.ListBuildsRequest{PageSize: 1})
		if err != nil || len(all.GetBuilds()) == 0 {
			return fmt.Errorf("no build: %w", err)
		}
		one, err := builds.GetBuild(asAdmin(t.Context()), &schedulerv1.GetBuildRequest{BuildId: all.GetBuilds()[0].GetId()})
		found = one.GetBuild()
		return err
	})
	return found
}

// linked is the build that a status leads to.
func (w *dockerWorld) linked(t testing.TB, shown githubsim.Status) *schedulerv1.Build {
	t.Helper()
	found, err := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).GetBuild(asAdmin(t.Context()), &schedulerv1.GetBuildRequest{BuildId: path.Base(shown.TargetURL)})
	must(t, err)
	return found.GetBuild()
}

// running waits for the container of an attempt to run.
func (w *dockerWorld) running(t testing.TB, build string, attempt int) container.InspectResponse {
	t.Helper()
	var found client.ContainerInspectResult
	kittest.Eventually(t, dockerPatience, func() (err error) {
		found, err = w.api.ContainerInspect(t.Context(), fmt.Sprintf("forge-%s-%d", build, attempt), client.ContainerInspectOptions{})
		if err == nil && !found.Container.State.Running {
			err = fmt.Errorf("it is %s", found.Container.State.Status)
		}
		return err
	})
	return found.Container
}

// begins waits until the log of a build shows that its command has begun.
func (w *dockerWorld) begins(t testing.TB, b *schedulerv1.Build) {
	t.Helper()
	kittest.Eventually(t, dockerPatience, func() error {
		if log := w.log(t, b.GetUrl()); !strings.Contains(log, "begun") {
			return fmt.Errorf("nothing has begun: %s", log)
		}
		return nil
	})
}

// attemptLog is what one attempt printed.
func (w *dockerWorld) attemptLog(t testing.TB, build string, attempt int32) string {
	t.Helper()
	stream, err := schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).WatchLog(asAdmin(t.Context()),
		&schedulerv1.WatchLogRequest{BuildId: build, Attempt: attempt})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text.Write(chunk.GetData())
	}
}

// let has a build's command go on, which waits for this file.
func (w *dockerWorld) let(t testing.TB, build string, attempt int) {
	t.Helper()
	name := fmt.Sprintf("forge-%s-%d", build, attempt)
	made, err := w.api.ExecCreate(t.Context(), name, client.ExecCreateOptions{Cmd: []string{"touch", "/tmp/go"}})
	if err == nil {
		_, err = w.api.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPullRequestIsBuiltInContainers(t *testing.T) {
	kittest.Require(t, "docker")
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{
			".forge.yml": lines(
				"image: "+image,
				"services:",
				"  greeter: {image: '"+image+"'}",
				"environment: {MOOD: good, FORGE_SHA: not this}",
				"execute:",
				"  - env",
				"  - {name: meet, run: 'echo; env; cat file; nc greeter 7000; echo in a $MOOD mood'}",
			),
			"file": "from the source\n",
		}
	})
	_, head := w.propose(t, "change", files("file", "from the change\n"))
	passed := w.shows(t, head, "forge/test", "success")
	build := w.newest(t)
	log := w.log(t, passed.TargetURL)
	for _, want := range []string{"service greeter (", ") is ready after", "from the change\nnice to meet you\nin a good mood\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	// Every command sees all of them, as they are promised.
	for variable, value := range map[string]string{
		"CI": "true", "FORGE": "true", "FORGE_ACTION": "test", "FORGE_PULL_REQUEST": "1", "FORGE_OWNER": owner, "FORGE_REPO": repo,
		"FORGE_SHA": head, "FORGE_REF": "refs/pull/1/head", "FORGE_BASE_REF": "main", "FORGE_COMMIT_COUNT": "1",
		"FORGE_BUILD_ID": build.GetId(), "FORGE_BUILD_URL": build.GetUrl(), "FORGE_VERSION": "rc1", "TRACEPARENT": "00-" + build.GetTraceId(),
	} {
		if n := strings.Count(log, "\n"+variable+"="+value); n != 2 {
			t.Errorf("%d of 2 commands see %s=%s", n, variable, value)
		}
	}
	if strings.Contains(log, "FORGE_RUNNER") {
		t.Error("commands see what is for forgexec alone")
	}
	w.cleared(t, build.GetId())
}

// Who may look at the containers of the host sees no secret there.
func TestSecretsAreInNothingThatDockerKnows(t *testing.T) {
	kittest.Require(t, "docker")
	const secret = "correct-horse-battery-staple"
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{".forge.yml": lines(
			"image: "+image,
			"secrets: [TOKEN]",
			`execute: ['test ${#TOKEN} = 28; echo begun; echo "$TOKEN"; until [ -e /tmp/go ]; do sleep 0.1; done']`,
		)}
	})
	if out, err := w.fed(t, secret, "secrets", "set", "--grpc-address="+w.grpc, "--repo="+owner+"/"+repo, "TOKEN", "--for=pull-requests"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, head := w.propose(t, "change", files("file", "x"))
	build := w.newest(t)
	w.begins(t, build)
	known, err := json.Marshal(w.running(t, build.GetId(), 1))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(known, []byte(secret)) {
		t.Errorf("docker inspect shows the secret: %s", known)
	}
	w.let(t, build.GetId(), 1)
	w.shows(t, head, "forge/test", "success")
	w.cleared(t, build.GetId())
}

func TestMemoryHogFailsAtItsLimitAndServerSaysSo(t *testing.T) {
	kittest.Require(t, "docker")
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{".forge.yml": lines("image: "+image, "execute: [tail /dev/zero]", "resources: {memory: 48MiB}")}
	})
	_, head := w.propose(t, "change", files("file", "x"))
	failed := w.shows(t, head, "forge/test", "failure")
	if !strings.Contains(failed.Description, "the memory limit of 48 MiB was reached") {
		t.Errorf("GitHub shows %q", failed.Description)
	}
	w.cleared(t, w.newest(t).GetId())
}

// While a command prints line after line, Forge is killed ten times. The build
// passes, every line is in its log once, and every command has run once.
func TestSIGKILLOfForgeCostsABuildNothing(t *testing.T) {
	kittest.Require(t, "docker")
	w := newDockerWorld(t, "", func(image string) map[string]string {
		return map[string]string{".forge.yml": lines(
			"image: "+image,
			"execute:",
			"  - 'echo one begins; i=0; until [ -e /tmp/go ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo $i lines'",
			"  - echo two begins",
		)}
	})
	_, head := w.propose(t, "change", files("file", "x"))
	build := w.newest(t)
	for range 10 {
		before := w.newest(t).GetLogSize()
		w.process("forge").kill()
		w.process("forge").begin(t)
		w.awaitUp(t)
		kittest.Eventually(t, dockerPatience, func() error {
			if b := w.newest(t); b.GetLogSize() == before {
				return fmt.Errorf("build %s is %s and prints nothing after %d bytes", b.GetId(), b.GetState(), before)
			}
			return nil
		})
	}
	w.let(t, build.GetId(), 1)
	passed := w.shows(t, head, "forge/test", "success")
	if b := w.newest(t); b.GetId() != build.GetId() || b.GetAttempt() != 1 {
		t.Errorf("build %s came to attempt %d of %s", build.GetId(), b.GetAttempt(), b.GetId())
	}
	var want strings.Builder
	want.WriteString("one begins\n")
	log := w.log(t, passed.TargetURL)
	n := strings.Count(log, "line ")
	for i := range n {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	fmt.Fprintf(&want, "%d lines\ntwo begins\n", n)
	if log != want.String() {
		t.Errorf("lines are lost, doubled or in disorder:\n%s", log)
	}
	w.cleared(t, build.GetId())
}

// What nobody can tell the end of is lost: a test runs once more, a deploy is a
// person's to judge. Neither is ever the fault of the commands.
func TestSIGKILLOfTheContainerIsNotTheCommandsFault(t *testing.T) {
	kittest.Require(t, "docker")
	w := newDockerWorld(t, "", func(image string) map[string]string {
		const wait = "'echo begun; until [ -e /tmp/go ]; do sleep 0.1; done'"
		return map[string]string{".forge.yml": lines("image: "+image, "execute: ["+wait+"]", "deploy: {staging: ["+wait+"]}")}
	})
	number, head := w.propose(t, "change", files("file", "x"))
	test := w.newest(t)
	w.begins(t, test)
	// Process 1 of the container is forgexec.
	if err := syscall.Kill(w.running(t, test.GetId(), 1).State.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.running(t, test.GetId(), 2)
	w.begins(t, test)
	w.let(t, test.GetId(), 2)
	w.shows(t, head, "forge/test", "success")
	if log := w.attemptLog(t, test.GetId(), 1); log != "begun\n" {
		t.Errorf("the first attempt printed %q", log)
	}

	merged := w.merge(t, number)
	kittest.Eventually(t, dockerPatience, func() error {
		if b := w.newest(t); b.GetSha() != merged {
			return fmt.Errorf("the newest build is of %.7s", b.GetSha())
		}
		return nil
	})
	deploy := w.newest(t)
	w.begins(t, deploy)
	if _, err := w.api.ContainerKill(t.Context(), w.running(t, deploy.GetId(), 1).ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	w.shows(t, merged, "forge/deploy-staging", "error")
	if b := w.newest(t); b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetMessage() != "the container ended with exit code 137 before its commands did" {
		t.Errorf("%s: %s", b.GetReason(), b.GetMessage())
	}
	w.cleared(t, test.GetId(), deploy.GetId())
}
