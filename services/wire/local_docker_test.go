package wire_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler"
)

// With Docker the same commands run in containers, with services beside them, and neither
// its end nor Ctrl-C leaves a container or a network.
func TestRunInDockerLeavesNothingBehind(t *testing.T) {
	kittest.Require(t, "docker")
	api := kittest.Docker(t, "")
	image := kittest.Image(t, api, "EXPOSE 7000", `CMD ["nc", "-ll", "-p", "7000", "-e", "echo", "nice to meet you"]`)
	t.Cleanup(func() { kittest.RemoveImage(context.WithoutCancel(t.Context()), t, api, image) })
	label := strings.ToLower(rand.Text())
	dir := gitRepository(t, map[string]string{
		".forge.yml": "image: " + image + "\n" + `
jobs:
  greets:
    services: {db: {image: ` + image + `}}
    execute: ['nc db 7000', 'cat new', 'test "$(hostname)" != "` + hostname(t) + `"']
  build:
    execute: ['mkdir root; cp -a /bin root/bin; cp new root/made', {image: {tags: [registry.invalid/web], load: true, push: true, output: WEB}}]
  use: {needs: [build], image: "${NEEDS_BUILD_WEB}", execute: ['echo it is $(cat /made)']}
manual: {execute: [{image: {tags: [registry.invalid/web], push: true}}]}
push: {branches: [main], execute: 'echo begun; sleep 1000'}
`, ".gitignore": "/tmp/\n/cache/\n", "Dockerfile": lines("FROM scratch", "LABEL forge.test.run="+label, "ENV PATH=/bin", "COPY Dockerfile root* /"),
	})
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte("not committed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := runsHere(t, dir)
	if err := first.Run(); err != nil {
		t.Fatalf("%v\n%s", err, first.Stdout)
	}
	for _, want := range []string{"with engine docker", "nice to meet you\n", "not committed\n", "it is not committed\n", "passed in"} {
		if said := first.Stdout.(*bytes.Buffer).String(); !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	nothingIsLeft(t, api, dir)
	byHand := runsHere(t, dir, "--event=manual")
	if err := byHand.Run(); err != nil || !strings.Contains(byHand.Stdout.(*bytes.Buffer).String(), "a working tree is not what was pushed") {
		t.Errorf("an image of a working tree: %v\n%s", err, byHand.Stdout)
	}
	if found, err := api.ImageList(t.Context(), client.ImageListOptions{Filters: client.Filters{}.Add("label", "forge.test.run="+label)}); err != nil || len(found.Items) > 0 {
		t.Errorf("images are left: %v, %v", found.Items, err)
	}

	second := runsHere(t, dir, "--event=push")
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	second.Stdout, second.Stderr = said, said
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	kittest.Eventually(t, 3*time.Minute, func() error {
		return exec.CommandContext(t.Context(), "grep", "-q", "^begun$", said.Name()).Run()
	})
	_ = second.Process.Signal(syscall.SIGINT)
	if err := second.Wait(); err == nil {
		t.Error("a build that was stopped passed")
	}
	nothingIsLeft(t, api, dir)
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// gitRepository is one with these files, committed.
func gitRepository(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "First"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, said)
		}
	}
	return dir
}

// runsHere is forge run in a folder, with its caches in there, too.
func runsHere(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	if err := buildBinaries(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "forge"), append([]string{"run"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(dir, "cache"))
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	return cmd
}

// nothingIsLeft fails where the engine has a container or a network of a build here.
func nothingIsLeft(t *testing.T, api *client.Client, dir string) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(dir, "cache", "forge", "run", "*", "state"))
	if err != nil || len(states) != 1 {
		t.Fatalf("%v has the state, %v", states, err)
	}
	db, err := sqldb.Open(t.Context(), sqldb.Config{Dir: states[0], Room: "scheduler", Migrations: scheduler.Migrations()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	instance, err := scheduler.Instance(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	mine := client.Filters{}.Add("label", "forge.instance="+instance)
	containers, err := api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	networks, err := api.NetworkList(t.Context(), client.NetworkListOptions{Filters: mine})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers.Items {
		t.Errorf("container %v is left, %s", c.Names, c.Status)
	}
	for _, n := range networks.Items {
		t.Errorf("network %s is left", n.Name)
	}
}
