// Package enginetest says what every engine must do, as tests. They run the real
// forgexec against a scheduler of their own; commands are plain sh, as busybox
// has it.
package enginetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

// soon is how long anything may take on a slow machine.
const soon = time.Minute

// Config says how to get the engine under test.
type Config struct {
	// New returns the engine that keeps what it must in dir. Asked again with the
	// same dir, it returns one that comes after a restart.
	New func(t *testing.T, forgexec, dir string) engine.Engine
	// Image has sh and what busybox has.
	Image string
	// Stranger is the same, run as a user without an entry in /etc/passwd.
	Stranger string
	// Bare: there are no containers, so services are refused, and there is nothing that
	// a build could be given besides.
	Bare bool
	// Kill ends the forgexec of an attempt with SIGKILL, past the engine. By default a
	// command does it, which does not work on a forgexec that is process 1.
	Kill func(t *testing.T, engine engine.Engine, attempt string)
	// Host is the address of this machine at which builds on others reach it. Runners
	// then speak TLS to a port there; by default they use a socket.
	Host string
}

// Run runs all the tests.
func Run(t *testing.T, config Config) {
	t.Helper()
	forgexec := build(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"CommandsRunAndAreHeard", commandsRunAndAreHeard},
		{"LinksAreMadeAsGitMakesThem", linksAreMadeAsGitMakesThem},
		{"HomeCanBeWrittenTo", homeCanBeWrittenTo},
		{"StartTwiceIsStartOnce", startTwiceIsStartOnce},
		{"StartAfterTheEndStartsNothing", startAfterTheEndStartsNothing},
		{"StartAfterStopStartsAnew", startAfterStopStartsAnew},
		{"ListTellsRunningFromEnded", listTellsRunningFromEnded},
		{"AttemptsAreApart", attemptsAreApart},
		{"StopEndsAllAndLeavesNothing", stopEndsAllAndLeavesNothing},
		{"OrphansAreReapedAndSIGTERMIsPassedOn", orphansAreReapedAndSIGTERMIsPassedOn},
		{"StopOfNothingIsNoError", stopOfNothingIsNoError},
		{"ARestartedEngineKnowsWhatRuns", aRestartedEngineKnowsWhatRuns},
		{"AKilledForgexecIsNotRunning", aKilledForgexecIsNotRunning},
		{"TailSaysWhyItDidNotAttach", tailSaysWhyItDidNotAttach},
		{"WhatCannotBeStartedIsInvalid", whatCannotBeStartedIsInvalid},
		{"StartCanBeBrokenOff", startCanBeBrokenOff},
		{"ServicesAreReadyFirst", servicesAreReadyFirst},
		{"AServiceThatDiesIsSaid", aServiceThatDiesIsSaid},
		{"ForksGetNothingBesides", forksGetNothingBesides},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{
				t: t, config: config, forgexec: forgexec, dir: t.TempDir(), runner: newRunner(t, config.Host),
				suffix: "-" + strings.ToLower(rand.Text()),
			}
			f.restart()
			test.run(t, f)
		})
	}
}

// build builds a forgexec as it is shipped.
func build(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "forgexec")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, "github.com/forge-ci/forge/services/cmd/forgexec")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build forgexec: %v\n%s", err, output)
	}
	return path
}

// fixture is one engine with the scheduler that its builds talk to. Tests name
// attempts "a1"; the engine sees them with a suffix of the fixture's own, since
// others use it too, and a test that was killed left its containers there.
type fixture struct {
	t             *testing.T
	config        Config
	forgexec, dir string
	engine        engine.Engine
	runner        *runner
	suffix        string
}

func (f *fixture) restart() {
	made := f.config.New(f.t, f.forgexec, f.dir)
	f.engine = made
	f.t.Cleanup(func() { f.stopAll(made) }) // before it is closed
}

func (f *fixture) spec(attempt string, steps ...string) engine.Spec {
	return engine.Spec{
		Attempt: attempt + f.suffix, BuildID: attempt, Repository: "octo/hello", Action: "test", Image: f.config.Image,
		Runner: engine.Runner{URL: f.runner.address, CA: f.runner.ca, Token: f.runner.expect(attempt, steps...)},
	}
}

func (f *fixture) start(attempt string, steps ...string) engine.Spec {
	f.t.Helper()
	spec := f.spec(attempt, steps...)
	if err := f.engine.Start(f.t.Context(), spec); err != nil {
		f.t.Fatalf("start %s: %v", attempt, err)
	}
	return spec
}

func (f *fixture) stop(attempt string) {
	f.t.Helper()
	if err := f.engine.Stop(f.t.Context(), attempt+f.suffix); err != nil {
		f.t.Errorf("stop %s: %v", attempt, err)
	}
}

func (f *fixture) stopAll(engine engine.Engine) {
	ctx := context.WithoutCancel(f.t.Context()) // which has ended by now
	containers, err := engine.List(ctx)
	if err != nil {
		f.t.Errorf("list: %v", err)
	}
	for _, container := range containers {
		if err := engine.Stop(ctx, container.Attempt); err != nil {
			f.t.Errorf("stop %s: %v", container.Attempt, err)
		}
	}
}

// list returns a line per container, in order: "name running" or "name exit 0".
func (f *fixture) list() []string {
	f.t.Helper()
	containers, err := f.engine.List(f.t.Context())
	if err != nil {
		f.t.Fatalf("list: %v", err)
	}
	var lines []string
	for _, c := range containers {
		name := strings.TrimSuffix(c.Attempt, f.suffix)
		line := fmt.Sprintf("%s exit %d", name, c.ExitCode)
		if c.Running {
			line = name + " running"
		}
		if age := time.Since(c.Start); !c.Start.IsZero() && (age < -soon || age > 5*soon) {
			f.t.Errorf("%s started at %v", c.Attempt, c.Start)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func (f *fixture) awaitList(want ...string) {
	f.t.Helper()
	kittest.Eventually(f.t, soon, func() error {
		if got := f.list(); !slices.Equal(got, want) {
			return fmt.Errorf("list: %q, want %q", got, want)
		}
		return nil
	})
}

// awaitEnd waits until the only attempt does not run any more.
func (f *fixture) awaitEnd(attempt string) {
	f.t.Helper()
	kittest.Eventually(f.t, soon, func() error {
		if got := f.list(); len(got) != 1 || !strings.HasPrefix(got[0], attempt+" exit ") {
			return fmt.Errorf("list: %q, want %s ended", got, attempt)
		}
		return nil
	})
}

func (f *fixture) awaitOutput(attempt, text string) {
	f.t.Helper()
	kittest.Eventually(f.t, soon, func() error {
		if got := f.runner.output(attempt); !strings.Contains(got, text) {
			return fmt.Errorf("output of %s: %q, without %q", attempt, got, text)
		}
		return nil
	})
}

// awaitGone waits until no process of this machine, seen from outside, has the
// text in its command line.
func (f *fixture) awaitGone(text string) {
	f.t.Helper()
	kittest.Eventually(f.t, soon, func() error {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, name := range lines {
			if line, err := os.ReadFile(name); err == nil && strings.Contains(string(line), text) {
				return fmt.Errorf("still there: %s %q", name, line)
			}
		}
		return nil
	})
}
