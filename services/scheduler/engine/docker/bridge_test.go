package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// changed passes requests to the Docker engine and lets change have a say in what it
// answers to a GET whose path ends so.
func changed(t *testing.T, suffix string, change func(answer map[string]any)) (host string) {
	t.Helper()
	api, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	dial := api.Dialer()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	proxy.Transport = transport
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method != http.MethodGet || !strings.HasSuffix(r.Request.URL.Path, suffix) {
			return nil
		}
		var answer map[string]any
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			return err
		}
		change(answer)
		text, err := json.Marshal(answer)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		r.Header.Set("Content-Length", strconv.Itoa(len(text)))
		return err
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return "tcp://" + server.Listener.Addr().String()
}

func TestNetworksAreLikeTheDockerEnginesOwn(t *testing.T) {
	like := changed(t, "/networks/bridge", func(answer map[string]any) {
		answer["Options"] = map[string]string{"com.docker.network.driver.mtu": "1380"}
		answer["EnableIPv6"] = true
	})
	for _, c := range []struct {
		config docker.Config
		mtu    string
		ipv6   bool
	}{
		{docker.Config{Host: like}, "1380", true},
		{docker.Config{Host: like, MTU: 1300}, "1300", true},
		{docker.Config{MTU: 1420}, "1420", false},
	} {
		r := newRig(t, c.config)
		name := r.start(t, r.spec(r.image(t)))
		if got, _ := r.run(t, name, "cat /sys/class/net/eth0/mtu"); got != c.mtu+"\n" {
			t.Errorf("%+v: MTU %q, want %s", c.config, got, c.mtu)
		}
		found, err := r.api.NetworkInspect(t.Context(), name, client.NetworkInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		six := 0
		for _, subnet := range found.Network.IPAM.Config {
			if subnet.Subnet.Addr().Is6() {
				six++
			}
		}
		if n := found.Network; n.EnableIPv6 != c.ipv6 || (six == 1) != c.ipv6 || len(n.IPAM.Config) != six+1 {
			t.Errorf("IPv6 %v, subnets %v", n.EnableIPv6, n.IPAM.Config)
		}
	}
}

func TestSELinuxHasTheRunnersFolderRelabelledAndIsSaid(t *testing.T) {
	r := newRig(t, docker.Config{})
	config := r.config
	config.Host = changed(t, "/info", func(answer map[string]any) {
		answer["SecurityOptions"] = []string{"name=seccomp,profile=default", "name=selinux"}
	})
	var log bytes.Buffer
	config.Log = slog.New(slog.NewTextHandler(&log, nil))
	confined, err := docker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer confined.Close()
	spec := r.spec(r.image(t))
	if err := confined.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	found := r.inspect(t, "forge-"+spec.Attempt)
	dir := strings.TrimSuffix(r.socket.Addr().String(), "/runner.sock")
	if !slices.Equal(found.HostConfig.Binds, []string{dir + ":/forge/runner:ro,z"}) || len(found.HostConfig.Mounts) != 0 {
		t.Errorf("binds %v, mounts %v", found.HostConfig.Binds, found.HostConfig.Mounts)
	}
	if out, code := r.run(t, "forge-"+spec.Attempt, "ls /forge/runner/runner.sock; touch /forge/runner/x 2>/dev/null || echo never"); code != 0 || out != "/forge/runner/runner.sock\nnever\n" {
		t.Errorf("exit %d, %q", code, out)
	}
	if !strings.Contains(log.String(), "SELinux confines") {
		t.Errorf("the log does not say so: %s", &log)
	}
	plain := r.spec(spec.Image)
	if c := r.inspect(t, r.start(t, plain)); len(c.HostConfig.Binds) != 0 || len(c.HostConfig.Mounts) != 1 {
		t.Errorf("without SELinux: binds %v, mounts %v", c.HostConfig.Binds, c.HostConfig.Mounts)
	}
}
