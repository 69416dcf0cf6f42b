package docker_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

func TestAddressPoolsThatAreUsedUpAreNamedAndWaitedFor(t *testing.T) {
	wire := newCutter(t, false)
	wire.exact = true
	r := newRig(t, docker.Config{Host: wire.host()})
	spec := r.spec(r.image(t))
	for _, said := range []string{
		"could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
		"all predefined address pools have been fully subnetted",
	} {
		wire.answer = said
		wire.cut.Store("/networks/create")
		err := r.Start(t.Context(), spec)
		delayed, ok := errors.AsType[*engine.DelayError](err)
		if !ok || delayed.Pause <= 0 || delayed.Within <= delayed.Pause {
			t.Fatalf("got %v", err)
		}
		for _, want := range []string{"no addresses left for another network", said, "docker network prune", "default-address-pools", "FORGE_CAPACITY"} {
			if !strings.Contains(err.Error(), want) || !strings.Contains(r.log(), want) {
				t.Errorf("no %q in %v; said %s", want, err, r.log())
			}
		}
	}
	wire.cut.Store("")
	r.start(t, spec)
}

func TestMostBuildsIsWhatThePoolsCarryBesideOthersNetworks(t *testing.T) {
	const networks = `[{"Name": "bridge"}, {"Name": "shop_default"}, {"Name": "forge-1", "Labels": {"forge.instance": "mine"}}, {"Name": "forge-2", "Labels": {"forge.instance": "another"}}]`
	for pools, want := range map[string]int{
		`null`: 31 - 3,
		`[{"Base": "10.0.0.0/16", "Size": 24}, {"Base": "192.168.0.0/20", "Size": 20}, {"Base": "fd00::/48", "Size": 64}]`: 257 - 3,
		`[{"Base": "10.0.0.0/23", "Size": 24}]`: 1, // there is always one to try
		`[{"Base": "10.0.0.0/8", "Size": 32}]`:  65536 - 3,
	} {
		fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", "1.41")
			w.Header().Set("Content-Type", "application/json")
			switch path.Base(r.URL.Path) {
			case "info":
				_, _ = w.Write([]byte(`{"DefaultAddressPools": ` + pools + `}`))
			case "networks":
				_, _ = w.Write([]byte(networks))
			}
		}))
		e, err := docker.New(t.Context(), docker.Config{Host: "tcp://" + fake.Listener.Addr().String(), Instance: "mine", Forgexec: []string{forgexec(t)}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.MostBuilds(t.Context()); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", pools, got, err, want)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		fake.Close()
	}
}

// Ends of a network that are left, as by containers that ended when the Docker engine
// could not write that down, do not keep it.
func TestANetworkThatIsTakenForConnectedGoes(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec, other := r.spec(r.image(t)), r.spec(r.image(t))
	name, stays := r.start(t, spec), r.start(t, other)
	if _, err := r.api.NetworkConnect(t.Context(), name, client.NetworkConnectOptions{Container: stays}); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if left := r.left(t.Context(), t); strings.Contains(left, name) || !strings.Contains(left, stays) {
		t.Errorf("there are %s", left)
	}
	kittest.Want(t, r.inspect(t, stays).State.Running, true, "that the other runs")
}
