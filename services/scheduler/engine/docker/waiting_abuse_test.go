package docker_test

import (
	"encoding/json"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// What waits is made for a build like one that has secrets, and taken by a fork's.
func TestWhatWaitsHoldsPrintsAndDialsNothing(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 1})
	image := r.image(t)
	first := r.spec(image)
	first.BuildID, first.Repository, first.Action, first.Runner.Token = "b-trusted", "octo/trusted", "deploy-trusted", "token-trusted"
	r.start(t, first)
	r.dialled(t)
	ready := r.waiting(t)

	inspected, err := json.Marshal(r.inspect(t, ready.ID))
	if err != nil {
		t.Fatal(err)
	}
	network, err := r.api.NetworkInspect(t.Context(), ready.Labels["forge.waiting"], client.NetworkInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	connected, err := json.Marshal(network.Network)
	if err != nil {
		t.Fatal(err)
	}
	inside, _ := r.run(t, ready.ID, "for of in environ cmdline; do tr '\\0' '\\n' </proc/1/$of; done; find /forge /tmp -xdev; grep -rs trusted /forge /tmp /etc /root /home")
	for what, text := range map[string]string{"its container": string(inspected), "its network": string(connected), "its inside": inside} {
		if strings.Contains(text, "trusted") || strings.Contains(text, first.Attempt) {
			t.Errorf("%s tells of a build: %s", what, text)
		}
	}
	if open, _ := r.run(t, ready.ID, "ls -l /proc/1/fd"); strings.Contains(open, "socket:") {
		t.Errorf("it has connections: %s", open)
	}
	logs, err := r.api.ContainerLogs(t.Context(), ready.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	if printed, err := io.ReadAll(logs); err != nil || len(printed) > 0 {
		t.Errorf("it printed %q, %v", printed, err)
	}

	fork := r.spec(image)
	fork.Fork, fork.Runner.Token = true, "token-fork"
	name := r.start(t, fork)
	r.dialled(t)
	if r.inspect(t, name).ID != ready.ID {
		t.Error("what waited was not taken")
	}
	all, _ := r.run(t, name, "find /forge /tmp -xdev; grep -rs trusted /forge /tmp /etc /root /home")
	if strings.Contains(all, "trusted") {
		t.Errorf("a fork's build sees what is another's: %s", all)
	}
}

// Each waits on a network of its own, which it keeps when it is taken: no build reaches
// what is to be another's.
func TestNoBuildIsOnTheNetworkOfWhatWaits(t *testing.T) {
	r := newRig(t, docker.Config{Waiting: 2})
	image := r.image(t)
	of := map[string]string{} // by network
	note := func(id string) {
		t.Helper()
		for network := range maps.Keys(r.inspect(t, id).NetworkSettings.Networks) {
			if other := of[network]; other != "" && other != id {
				t.Errorf("%s and %s share network %s", id, other, network)
			}
			of[network] = id
		}
	}
	for range 3 {
		name := r.start(t, r.spec(image))
		note(r.inspect(t, name).ID)
		for _, one := range waits(t, r.api, r.config.Instance) {
			note(one.ID)
		}
	}
}

// A container is one attempt's: whoever has its standard input later gives it no other
// token, and no attempt is given what another has taken.
func TestTakenContainerTakesNoOtherAttempt(t *testing.T) {
	r := newRig(t, docker.Config{})
	image := r.image(t)
	first := r.spec(image)
	if err := r.Prepare(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	name := r.start(t, first)
	r.dialled(t)
	taken := r.inspect(t, name).ID
	stream, err := r.api.ContainerAttach(t.Context(), taken, client.ContainerAttachOptions{Stream: true, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stream.Conn, "token-of-another\n"); err != nil {
		t.Error(err)
	}
	stream.Close()
	second := r.spec(image)
	if got := r.inspect(t, r.start(t, second)).ID; got == taken {
		t.Error("an attempt was given another's container")
	}
	listed, err := r.List(t.Context())
	attempts := map[string]bool{}
	for _, c := range listed {
		attempts[c.Attempt] = c.Running
	}
	if err != nil || !attempts[first.Attempt] || !attempts[second.Attempt] || len(listed) != 2 {
		t.Errorf("there are %v, %v", listed, err)
	}
	if err := r.Stop(t.Context(), second.Attempt); err != nil {
		t.Error(err)
	}
	if found := r.listed(t, func(c engine.Container) bool { return c.Running }); found.Attempt != first.Attempt {
		t.Errorf("stopping one ended the other: %v", found)
	}
}
