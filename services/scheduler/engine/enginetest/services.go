package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// brokenOffWithin is how long a Start takes to return when it is not wanted any more, on a machine that is busy.
const brokenOffWithin = time.Minute

// service runs a shell's script beside the build.
func (f *fixture) service(name, script string, ready engine.Ready) engine.Sidecar {
	return engine.Sidecar{Name: name, Image: f.config.Image, Entrypoint: []string{"sh", "-c"}, Command: []string{script}, Ready: ready}
}

// said collects what the engine says in the build's log.
func said(spec *engine.Spec) (log func() string) {
	var mu sync.Mutex
	var lines []string
	spec.Say = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	}
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, "\n")
	}
}

// A Start that nobody wants any more returns soon, and what it was about to make can
// be removed.
func startCanBeBrokenOff(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec := f.spec("a1", "echo never")
	if f.config.Bare { // which has nothing to wait for
		cancel()
	} else {
		spec.Sidecars = []engine.Sidecar{f.service("db", "sleep 1000", engine.Ready{Run: "false", Within: time.Hour})}
	}
	ended := make(chan error, 1)
	go func() { ended <- f.engine.Start(ctx, spec) }()
	if !f.config.Bare {
		kittest.Eventually(t, soon, func() error {
			if got := f.list(); len(got) != 1 {
				return fmt.Errorf("list: %q, want what has been made so far", got)
			}
			return nil
		})
		cancel()
	}
	begin := time.Now()
	err := <-ended
	if took := time.Since(begin); took > brokenOffWithin {
		t.Errorf("it returned after %v", took)
	}
	if !f.config.Bare && !errors.Is(err, context.Canceled) || fault.Is(err, fault.Invalid) {
		t.Errorf("it returned %v", err)
	}
	// What the engine was asked for may come to be in the middle of a stop, which is
	// then tried again.
	stopped := func() error { return f.engine.Stop(t.Context(), "a1"+f.suffix) }
	kittest.Eventually(t, soon, stopped)
	f.start("a2", "echo another")
	f.awaitOutput("a2", "another")
	kittest.Eventually(t, soon, func() error {
		if err := stopped(); err != nil {
			return err
		}
		if got := f.list(); len(got) != 1 || !strings.HasPrefix(got[0], "a2 ") {
			return fmt.Errorf("list: %q, want a2 alone", got)
		}
		return nil
	})
}

// The first command already finds them.
func servicesAreReadyFirst(t *testing.T, f *fixture) {
	spec := f.spec("a1", "nc store 9000; nc cache 9001")
	spec.Sidecars = []engine.Sidecar{
		f.service("store", "sleep 1; exec nc -ll -p 9000 -e echo hello", engine.Ready{Port: 9000, Within: soon}),
		f.service("cache", "nc -ll -p 9001 -e cat /tmp/ready & sleep 1; echo ready >/tmp/ready; wait", engine.Ready{Run: "test -s /tmp/ready", Within: soon}),
	}
	log := said(&spec)
	err := f.engine.Start(t.Context(), spec)
	if f.config.Bare {
		f.refusesServices(t, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	f.awaitList("a1 exit 0")
	if got := f.runner.output("a1"); !strings.HasSuffix(got, "hello\nready\n") {
		t.Errorf("output: %q", got)
	}
	for _, name := range []string{"store", "cache"} {
		if !strings.Contains(log(), "service "+name+" ("+f.config.Image+") is ready after ") {
			t.Errorf("the log does not say that %s is ready: %s", name, log())
		}
	}
	f.stop("a1")
	f.awaitList()
}

func (f *fixture) refusesServices(t *testing.T, err error) {
	t.Helper()
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "services (") {
		t.Errorf("got %v", err)
	}
	f.awaitList()
}

// One that ends before it is ready ends the Start, which says why. When one ends
// later the commands go on.
func aServiceThatDiesIsSaid(t *testing.T, f *fixture) {
	spec := f.spec("a1", "echo never")
	spec.Sidecars = []engine.Sidecar{f.service("db", "echo no disk for me; sleep 0.5; exit 3", engine.Ready{Run: "false", Within: soon})}
	log := said(&spec)
	err := f.engine.Start(t.Context(), spec)
	if f.config.Bare {
		f.refusesServices(t, err)
		return
	}
	if want := "ended with exit code 3 before it was ready"; !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "service db") || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if want := "db | no disk for me"; !strings.Contains(log(), want) {
		t.Errorf("the log says %q, want %q", log(), want)
	}
	if n := f.runner.runners("a1"); n != 0 {
		t.Errorf("%d runners came all the same", n)
	}
	f.stop("a1")
	f.awaitList()

	later := f.spec("a2", "while nc -w 1 store 9000 2>/dev/null; do sleep 0.1; done; echo it is gone", "echo and I go on")
	later.Sidecars = []engine.Sidecar{f.service("store", "nc -ll -p 9000 -e echo hello & sleep 3; kill $!; exit 1", engine.Ready{Port: 9000, Within: soon})}
	if err := f.engine.Start(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	f.awaitList("a2 exit 0")
	if got := f.runner.output("a2"); !strings.HasSuffix(got, "hello\nit is gone\nand I go on\n") {
		t.Errorf("output: %q", got)
	}
}

// What an engine can give a build besides, a fork's is refused; and it has nothing
// that another has not.
func forksGetNothingBesides(t *testing.T, f *fixture) {
	const look = "env | cut -d= -f1; grep ^Cap /proc/self/status; cut -d' ' -f2 /proc/mounts; echo seen"
	lines := func(attempt string) []string {
		f.awaitOutput(attempt, "seen\n")
		return strings.Split(f.runner.output(attempt), "\n")
	}
	f.start("a1", look)
	plain := lines("a1")
	fork := f.spec("a2", look)
	fork.Fork = true
	if err := f.engine.Start(t.Context(), fork); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines("a2") {
		if !slices.Contains(plain, line) && !strings.HasPrefix(line, "/proc/") {
			t.Errorf("a fork's build has %q, and another has not", line)
		}
	}
	if f.config.Bare {
		return
	}
	for name, give := range map[string]func(*engine.Spec){
		"privilege": func(s *engine.Spec) { s.Privileged = true },
		"a volume":  func(s *engine.Spec) { s.Volumes = []engine.Volume{{Source: "/", Target: "/host"}} },
		"a privileged service": func(s *engine.Spec) {
			s.Sidecars = []engine.Sidecar{{Name: "docker", Image: f.config.Image, Privileged: true}}
		},
	} {
		spec := f.spec("a3", "true")
		spec.Fork = true
		give(&spec)
		if err := f.engine.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want fault.Invalid", name, err)
		}
	}
	if got := f.list(); len(got) != 2 {
		t.Errorf("started: %q", got)
	}
}
