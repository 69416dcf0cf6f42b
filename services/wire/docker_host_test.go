package wire_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// foreign starts a container that is not Forge's, of the image of the builds. It
// goes with the test at the latest.
func (w *dockerWorld) foreign(t *testing.T, image string, networks map[string]*network.EndpointSettings, cmd ...string) (id string) {
	t.Helper()
	made, err := w.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &container.Config{Image: image, Cmd: cmd}, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: networks},
	})
	t.Cleanup(func() {
		_, err := w.api.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	})
	if err == nil {
		_, err = w.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// A build that fills the disk fails by itself; one that finds it full is errored,
// which is not its commands' fault; and with room again builds pass.
func TestFullDiskIsToldAndPasses(t *testing.T) {
	daemon := newDockerDaemonOn(t, "96m")
	var image string
	w := newDockerWorld(t, daemon.host(), func(name string) map[string]string {
		image = name
		return map[string]string{".forge.yml": lines("image: "+name, "execute: [sh step.sh]"), "step.sh": "true\n"}
	})
	_, head := w.propose(t, "fills", files("step.sh", "cat /dev/zero >/fill\n"))
	failed := w.shows(t, head, "forge/test", "failure")
	if !strings.Contains(w.log(t, failed.TargetURL), "No space left on device") {
		t.Errorf("the log says %s", w.log(t, failed.TargetURL))
	}
	w.cleared(t, w.newest(t).GetId()) // or the disk is full of it

	// The daemon frees a little later on, which would let a build begin.
	holder := w.foreign(t, image, nil, "sh", "-c", "while :; do cat /dev/zero >>/fill; usleep 1000; done 2>/dev/null")
	kittest.Eventually(t, dockerPatience, func() error {
		if free := daemon.free(t); free > 0 {
			return fmt.Errorf("%d bytes are free", free)
		}
		return nil
	})
	_, head = w.propose(t, "finds-it-full", files("file", "x"))
	errored := w.shows(t, head, "forge/test", "error")
	// A container that waited may have given way to it, with too little room for its source.
	if !strings.Contains(errored.Description, "the disk of the Docker engine is full") && !strings.HasSuffix(errored.Description, "no space left on device") {
		t.Errorf("GitHub shows %q", errored.Description)
	}
	if _, err := w.api.ContainerRemove(t.Context(), holder, client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	_, head = w.propose(t, "has-room", files("file", "y"))
	w.shows(t, head, "forge/test", "success")
	w.cleared(t, w.newest(t).GetId())
}

// The rules that the page on security gives keep builds from where clouds answer
// with credentials, though the host would let them through.
func TestTheHostsRulesKeepBuildsFromCloudsCredentials(t *testing.T) {
	daemon := newDockerDaemon(t)
	var image string
	w := newDockerWorld(t, daemon.host(), func(name string) map[string]string {
		image = name
		return map[string]string{".forge.yml": lines("image: "+name, "execute: ['nc -w 5 169.254.169.254 7000 || echo not there']")}
	})
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "iptables ") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	if len(rules) == 0 {
		t.Fatal("the page has no rules")
	}
	onHost := func(command string) {
		t.Helper()
		all := append([]string{"--net", "--target", strconv.Itoa(daemon.cmd.Process.Pid)}, strings.Fields(command)...)
		if out, err := exec.CommandContext(t.Context(), "nsenter", all...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	// The cloud is one more network of the host's, to which it leads.
	cloud, err := w.api.NetworkCreate(t.Context(), "cloud", client.NetworkCreateOptions{
		Driver: "bridge", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("169.254.169.0/24")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.foreign(t, image, map[string]*network.EndpointSettings{"cloud": {
		NetworkID: cloud.ID, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("169.254.169.254")},
	}})
	onHost("iptables -I DOCKER-USER -d 169.254.0.0/16 -j ACCEPT")
	onHost("iptables -I DOCKER-USER -s 169.254.0.0/16 -j ACCEPT")
	_, head := w.propose(t, "gets-them", files("file", "x"))
	if got := w.log(t, w.shows(t, head, "forge/test", "success").TargetURL); !strings.Contains(got, "nice to meet you") {
		t.Errorf("without the rules nothing is there either: %s", got)
	}
	w.cleared(t, w.newest(t).GetId())
	for _, rule := range rules {
		onHost(rule)
	}
	_, head = w.propose(t, "does-not", files("file", "y"))
	if got := w.log(t, w.shows(t, head, "forge/test", "success").TargetURL); !strings.Contains(got, "not there") || strings.Contains(got, "nice to meet you") {
		t.Errorf("with the rules the build got: %s", got)
	}
	w.cleared(t, w.newest(t).GetId())
}
