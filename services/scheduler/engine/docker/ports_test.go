package docker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestPublishedPortLeadsToTheBuild(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t))
	host := uint16(kittest.FreePort(t))
	spec.Ports = []engine.Port{{Container: 7000, Host: host}}
	name := r.start(t, spec)
	if out, code := r.run(t, name, "setsid nc -ll -p 7000 -e echo hello >/dev/null 2>&1 & until nc -w 1 127.0.0.1 7000; do :; done"); code != 0 {
		t.Fatalf("no server: exit %d, %q", code, out)
	}
	kittest.Eventually(t, soon, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", host))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(conn)
		if err != nil || string(text) != "hello\n" {
			return fmt.Errorf("got %q, %w", text, err)
		}
		return conn.Close()
	})
}

func TestPortThatIsTakenNamesItsHolder(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	other, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	byProcess := uint16(other.Addr().(*net.TCPAddr).Port)
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}

	build := r.spec(image)
	build.BuildID, build.Repository = "holder", "octo/dog"
	build.Ports = []engine.Port{{Container: 80, Host: uint16(kittest.FreePort(t))}}
	r.start(t, build)

	somebody := client.ContainerCreateOptions{Name: unique(), Config: &container.Config{Image: image, Cmd: []string{"sleep", "1000"}}, HostConfig: &container.HostConfig{}}
	byContainer := uint16(kittest.FreePort(t))
	port := network.MustParsePort("80/tcp")
	somebody.Config.ExposedPorts = network.PortSet{port: {}}
	somebody.HostConfig.PortBindings = network.PortMap{port: {{HostPort: strconv.Itoa(int(byContainer))}}}
	made, err := r.api.ContainerCreate(t.Context(), somebody)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := r.api.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}

	for host, want := range map[uint16]string{
		build.Ports[0].Host: "is taken by build holder of octo/dog",
		byContainer:         "is taken by container " + somebody.Name,
		byProcess:           "is taken by process " + strconv.Itoa(os.Getpid()) + " (" + strings.TrimSpace(string(own)) + ")",
	} {
		spec := r.spec(image)
		spec.Ports = []engine.Port{{Container: 81, Host: uint16(kittest.FreePort(t))}, {Container: 80, Host: host}}
		err := r.Start(t.Context(), spec)
		if want = fmt.Sprintf("port %d of the host %s", host, want); !fault.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
