package swarm_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/engine/dockerapi"
	swarmengine "github.com/forge-ci/forge/services/scheduler/engine/swarm"
)

// cutter passes requests to a manager, but for those that cut matches, as "METHOD
// /path": it hangs up on them, before or after the manager has seen them, or answers
// in its place. To the engine that is what a kill of Forge at this place leaves.
type cutter struct {
	*httptest.Server

	mu     sync.Mutex
	cut    *regexp.Regexp // nil: none
	after  bool
	status int // in place of hanging up
	answer string
}

func newCutter(t *testing.T, s *kittest.Swarm) *cutter {
	t.Helper()
	dial := s.Nodes[0].API.Dialer()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	proxy.Transport = transport
	c := &cutter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		matches := c.cut != nil && c.cut.MatchString(r.Method+" "+r.URL.Path)
		after, status, answer := c.after, c.status, c.answer
		c.mu.Unlock()
		switch {
		case !matches:
			proxy.ServeHTTP(w, r)
			return
		case status != 0:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"message": "` + answer + `"}`))
			return
		case after:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *cutter) at(request string, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.after, c.status = regexp.MustCompile(request), after, 0
}

func (c *cutter) answerTo(request string, status int, answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.status, c.answer = regexp.MustCompile(request), status, answer
}

func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = nil
}

func (c *cutter) host() string { return "tcp://" + strings.TrimPrefix(c.URL, "http://") }

// ran is how many tasks of the attempt's own have had a container.
func (r *rig) ran(t *testing.T, attempt string) int {
	t.Helper()
	found, err := r.api.TaskList(t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("label", dockerapi.AttemptLabel+"="+attempt)})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, task := range found.Items {
		if status := task.Status.ContainerStatus; status != nil && status.ContainerID != "" && task.Spec.ContainerSpec.Labels[dockerapi.SidecarLabel] == "" {
			count++
		}
	}
	return count
}

// cuts is where a call is cut: of one that only reads both places are the same.
func cuts(call string) []bool {
	if strings.HasPrefix(call, "GET ") {
		return []bool{false}
	}
	return []bool{false, true}
}

// It takes minutes, as does the one below.
func startGoesOnWhereItWasInterrupted(t *testing.T, s *kittest.Swarm, image string) {
	kittest.Require(t, "soak")
	wire := newCutter(t, s)
	r := newRig(t, s, swarmengine.Config{Image: image, Host: wire.host()})
	own, beside := s.Image(t), s.Image(t, `CMD ["sleep", "1000"]`)
	for _, call := range []string{"GET .*/distribution/", "POST .*/networks/create", "POST .*/services/create", "GET .*/services/forge-t[a-z0-9]*$", "GET .*/tasks$", "GET .*/nodes$"} {
		for _, after := range cuts(call) {
			again, stopped := r.spec(own), r.spec(own)
			for _, spec := range []*engine.Spec{&again, &stopped} {
				if strings.HasSuffix(call, "/services/create") {
					spec.Sidecars = []engine.Sidecar{{Name: "db", Image: beside}}
				}
				wire.at(call, after)
				// What a registry says decides nothing.
				if err := r.Start(t.Context(), *spec); (err == nil) != strings.Contains(call, "distribution") || fault.Is(err, fault.Invalid) {
					t.Fatalf("%s, after it %v: %v", call, after, err)
				}
				wire.mend()
			}
			if err := r.Stop(t.Context(), stopped.Attempt); err != nil {
				t.Errorf("%s, after it %v: %v", call, after, err)
			}
			for range 2 {
				if err := r.Start(t.Context(), again); err != nil {
					t.Errorf("%s, after it %v: %v", call, after, err)
				}
			}
			listed, err := r.swept(t, again.Attempt)
			if err != nil || len(listed) != 1 || !listed[0].Running || r.ran(t, again.Attempt) != 1 {
				t.Errorf("%s, after it %v: %+v, %v, ran %d times", call, after, listed, err, r.ran(t, again.Attempt))
			}
			if err := r.Stop(t.Context(), again.Attempt); err != nil {
				t.Error(err)
			}
			if _, err := r.swept(t, ""); err != nil {
				t.Error(err)
			}
			if left := left(t.Context(), t, r.api, r.config.Instance); left != "" {
				t.Errorf("%s, after it %v: left %s", call, after, left)
			}
		}
	}
}

func stopGoesOnWhereItWasInterrupted(t *testing.T, s *kittest.Swarm, image string) {
	kittest.Require(t, "soak")
	wire := newCutter(t, s)
	r := newRig(t, s, swarmengine.Config{Image: image, Host: wire.host()})
	own := s.Image(t)
	for _, call := range []string{"GET .*/services$", "POST .*/services/.*/update", "GET .*/tasks$", "DELETE .*/services/", "DELETE .*/networks/"} {
		for _, after := range cuts(call) {
			spec := r.spec(own)
			if err := r.Start(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			wire.at(call, after)
			if err := r.Stop(t.Context(), spec.Attempt); err == nil {
				t.Errorf("%s, after it %v: it was not interrupted", call, after)
			}
			wire.mend()
			for range 2 {
				if err := r.Stop(t.Context(), spec.Attempt); err != nil {
					t.Errorf("%s, after it %v: %v", call, after, err)
				}
			}
			if _, err := r.swept(t, ""); err != nil {
				t.Error(err)
			}
			if left := left(t.Context(), t, r.api, r.config.Instance); left != "" {
				t.Errorf("%s, after it %v: left %s", call, after, left)
			}
		}
	}
	wire.at(".", false)
	if listed, err := r.List(t.Context()); err == nil {
		t.Errorf("nobody knows what runs while the managers are away: %+v", listed)
	}
	wire.mend()
}

// The machine has no such image; what the registry says of it is said in its place.
func anImageThatCannotBePulledSaysWhy(t *testing.T, s *kittest.Swarm, image string) {
	wire := newCutter(t, s)
	r := newRig(t, s, swarmengine.Config{Image: image, Host: wire.host()})
	for _, c := range []struct {
		status                 int
		answer, want, platform string
	}{
		{http.StatusNotFound, "manifest unknown: manifest unknown", "image registry.invalid/octo/tools:1: manifest unknown: manifest unknown: registry.invalid has no such image", ""},
		{http.StatusUnauthorized, "unauthorized: authentication required", "image registry.invalid/octo/tools:1: unauthorized: authentication required: registry.invalid refuses it; credentials", ""},
		{http.StatusOK, `", "Descriptor": {"digest": "sha256:` + strings.Repeat("ab", 32) + `"}, "x": "`, "image registry.invalid/octo/tools:1 could not be pulled by " + s.Nodes[0].Name + ", though its registry has it: No such image: ", ""},
		{http.StatusOK, `", "Descriptor": {"digest": "sha256:` + strings.Repeat("ab", 32) + `"}, "Platforms": [{"os": "linux", "architecture": "riscv64"}], "x": "`, "image registry.invalid/octo/tools:1 is for linux/riscv64; the machines of the swarm are linux/", ""},
		{http.StatusOK, `", "Platforms": [{"os": "linux", "architecture": "s390x"}, {"os": "unknown", "architecture": "unknown"}], "x": "`, "it asks for platform linux/arm64; registry.invalid has image registry.invalid/octo/tools:1 for linux/s390x", "linux/arm64"},
	} {
		spec := r.spec("registry.invalid/octo/tools:1")
		spec.Platform = c.platform
		wire.answerTo("GET .*/distribution/", c.status, c.answer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := r.Start(ctx, spec)
		cancel()
		wire.mend()
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.answer, err, c.want)
		}
		if err := r.Stop(t.Context(), spec.Attempt); err != nil {
			t.Error(err)
		}
	}
}
