package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/docker"
)

// cutter passes requests to the Docker engine, but for those that end in cut: it
// hangs up on them, before or after the Docker engine has seen them. To the engine
// that is what a kill of Forge at this place leaves behind.
type cutter struct {
	*httptest.Server
	cut    atomic.Value // string; "" for none, "/" for all
	after  bool
	answer string       // in place of hanging up
	exact  bool         // the whole of cut counts, not its last part alone
	meddle atomic.Value // func(http.ResponseWriter, *http.Request, http.Handler) bool: it has answered in place of the Docker engine
}

func newCutter(t *testing.T, after bool) *cutter {
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
	c := &cutter{after: after}
	c.cut.Store("")
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meddle, ok := c.meddle.Load().(func(http.ResponseWriter, *http.Request, http.Handler) bool); ok && meddle(w, r, proxy) {
			return
		}
		cut := c.cut.Load().(string)
		if cut == "" || cut != "/" && path.Base(r.URL.Path) != path.Base(cut) || c.exact && !strings.HasSuffix(r.URL.Path, cut) {
			proxy.ServeHTTP(w, r)
			return
		}
		if c.answer != "" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"message": "` + c.answer + `"}`))
			return
		}
		if c.after {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *cutter) host() string { return "tcp://" + strings.TrimPrefix(c.URL, "http://") }

func TestStartGoesOnWhereItWasInterrupted(t *testing.T) {
	for name, after := range map[string]bool{"before": false, "after": true} {
		for _, step := range []string{"/networks/create", "/containers/create", "/containers/id/archive", "/containers/id/start"} {
			t.Run(name+step, func(t *testing.T) {
				wire := newCutter(t, after)
				r := newRig(t, docker.Config{Host: wire.host()})
				again, stopped := r.spec(r.image(t, "USER builder")), r.spec("")
				stopped.Image = again.Image

				wire.cut.Store(step)
				for _, spec := range []engine.Spec{again, stopped} {
					if err := r.Start(t.Context(), spec); err == nil || fault.Is(err, fault.Invalid) {
						t.Fatalf("interrupted: %v", err)
					}
				}
				wire.cut.Store("")
				if err := r.Stop(t.Context(), stopped.Attempt); err != nil {
					t.Error(err)
				}
				name := r.start(t, again)
				if out, code := r.run(t, name, "cat /proc/1/comm"); out != "forgexec\n" || code != 0 {
					t.Errorf("exit %d, %q", code, out)
				}
				want := "container [/" + name + "] (running), network " + name
				if left := r.left(t.Context(), t); left != want {
					t.Errorf("there are %s, want %s", left, want)
				}
			})
		}
	}
}

func TestNobodyKnowsWhatRunsWhileDockerIsAway(t *testing.T) {
	wire := newCutter(t, false)
	r := newRig(t, docker.Config{Host: wire.host()})
	spec := r.spec(r.image(t))
	r.start(t, spec)
	wire.cut.Store("/")
	if containers, err := r.List(t.Context()); err == nil {
		t.Errorf("List: %+v", containers)
	}
	if err := r.Stop(t.Context(), spec.Attempt); err == nil {
		t.Error("Stop: no error")
	}
	if err := r.Start(t.Context(), spec); err == nil || fault.Is(err, fault.Invalid) {
		t.Errorf("Start: %v", err)
	}
	wire.cut.Store("")
	r.listed(t, func(c engine.Container) bool { return c.Running })
}

func TestFullDiskErrorsTheBuildAfterASecondTry(t *testing.T) {
	wire := newCutter(t, false)
	wire.answer = "write /var/lib/docker/overlay2: no space left on device"
	r := newRig(t, docker.Config{Host: wire.host()})
	image := r.image(t, "USER builder")
	for _, step := range []string{"/containers/create", "/containers/id/archive", "/containers/id/start"} {
		r.said = nil
		wire.cut.Store(step)
		spec := r.spec(image)
		var waited []engine.Wait
		spec.Waits = func(what engine.Wait, _ string) { waited = append(waited, what) }
		err := r.Start(t.Context(), spec)
		if !slices.Equal(waited, []engine.Wait{engine.WaitDisk, engine.WaitOther}) {
			t.Errorf("%s: it waited for %v", step, waited)
		}
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "the disk of the Docker engine is full: ") || !strings.Contains(r.log(), "trying once more") {
			t.Errorf("%s: got %v; said %s", step, err, r.log())
		}
		wire.cut.Store("")
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
}

// Docker's answer to each further try would be the same.
func TestContainerThatDockerCannotStartErrorsTheBuildAfterASecondTry(t *testing.T) {
	wire := newCutter(t, false)
	wire.answer = "failed to create endpoint: iptables: No chain/target/match by that name."
	r := newRig(t, docker.Config{Host: wire.host()})
	wire.cut.Store("/containers/id/start")
	err := r.Start(t.Context(), r.spec(r.image(t)))
	if !fault.Is(err, fault.Invalid) || err.Error() != "the container cannot be started: "+wire.answer || !strings.Contains(r.log(), "trying once more") {
		t.Errorf("got %v; said %s", err, r.log())
	}
}

// A Forge that is killed while Docker makes the network leaves one that the next
// does not see yet.
func TestSecondNetworkOfAnAttemptIsRemoved(t *testing.T) {
	r := newRig(t, docker.Config{})
	spec := r.spec(r.image(t))
	name := "forge-" + spec.Attempt
	labels := map[string]string{"forge.instance": r.config.Instance, "forge.attempt": spec.Attempt}
	for n := range 2 {
		_, err := r.api.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{Driver: "bridge", Labels: labels})
		if err != nil && (n == 0 || !errdefs.IsConflict(err)) { // newer Docker engines refuse the second
			t.Fatal(err)
		}
	}
	r.start(t, spec)
	r.listed(t, func(c engine.Container) bool { return c.Running })
}
