package enginetest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/engine"
)

func commandsRunAndAreHeard(t *testing.T, f *fixture) {
	f.start("a1", "cat hello; echo oops >&2", "pwd >/dev/null; echo $CI; exit 4", "echo never")
	f.awaitOutput("a1", "true\n")
	f.awaitList("a1 exit 0")
	if got, want := f.runner.story("a1"), "start 1, end 1: 0, start 2, end 2: 4, DONE"; got != want {
		t.Errorf("reported: %s; want %s", got, want)
	}
	got := f.runner.output("a1")
	if !strings.HasSuffix(got, "hello from the source\noops\ntrue\n") {
		t.Errorf("output: %q", got)
	}
	if strings.Contains(got, f.runner.token("a1")) {
		t.Error("the token is in the output")
	}
}

// Repositories have links to /dev/null, and to what lies beside them.
func linksAreMadeAsGitMakesThem(t *testing.T, f *fixture) {
	f.runner.source = source(t, map[string]string{"null": "/dev/null", "up": "../escape", "self": "hello"})
	f.start("a1", "readlink null; readlink up; echo x >null; cat self", "test ! -e ../escape && echo untouched")
	f.awaitList("a1 exit 0")
	if got, want := f.runner.output("a1"), "/dev/null\n../escape\nhello from the source\nuntouched\n"; !strings.HasSuffix(got, want) {
		t.Errorf("output: %q, want %q", got, want)
	}
}

// Docker gives a user whom the image does not know the home "/".
func homeCanBeWrittenTo(t *testing.T, f *fixture) {
	spec := f.spec("a1", `cd "$HOME" && mkdir .cache && echo kept >.cache/x`, `cat "$HOME/.cache/x"`)
	spec.Image = f.config.Stranger
	if err := f.engine.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	f.awaitList("a1 exit 0")
	if got := f.runner.output("a1"); !strings.HasSuffix(got, "kept\n") {
		t.Errorf("output: %q", got)
	}
}

func startTwiceIsStartOnce(t *testing.T, f *fixture) {
	spec := f.start("a1", "echo ready; sleep 1000")
	f.awaitOutput("a1", "ready")
	for range 3 {
		if err := f.engine.Start(t.Context(), spec); err != nil {
			t.Errorf("start again: %v", err)
		}
	}
	f.restart()
	if err := f.engine.Start(t.Context(), spec); err != nil {
		t.Errorf("start again after a restart: %v", err)
	}
	f.awaitList("a1 running")
	if n := f.runner.runners("a1"); n != 1 {
		t.Errorf("%d runners", n)
	}
}

func startAfterTheEndStartsNothing(t *testing.T, f *fixture) {
	spec := f.start("a1", "true")
	f.awaitList("a1 exit 0")
	if err := f.engine.Start(t.Context(), spec); err != nil {
		t.Errorf("start again: %v", err)
	}
	f.awaitList("a1 exit 0")
	if n := f.runner.runners("a1"); n != 1 {
		t.Errorf("%d runners", n)
	}
}

func startAfterStopStartsAnew(_ *testing.T, f *fixture) {
	f.start("a1", "true")
	f.awaitList("a1 exit 0")
	f.stop("a1")
	f.awaitList()
	f.start("a1", "echo anew")
	f.awaitOutput("a1", "anew")
	f.awaitList("a1 exit 0")
}

func listTellsRunningFromEnded(_ *testing.T, f *fixture) {
	f.awaitList()
	f.start("a1", "sleep 1000")
	f.awaitList("a1 running")
	f.start("a2", "true")
	f.awaitList("a1 running", "a2 exit 0")
	spec := f.spec("a3", "true")
	spec.Runner.Token = "another"
	if err := f.engine.Start(f.t.Context(), spec); err != nil {
		f.t.Fatal(err)
	}
	f.awaitList("a1 running", "a2 exit 0", "a3 exit 3")
	f.stop("a1")
	f.awaitList("a2 exit 0", "a3 exit 3")
}

func attemptsAreApart(t *testing.T, f *fixture) {
	const look = "ls; echo x >mine; echo x >$HOME/mine; echo x >${TMPDIR:-/tmp}/mine; echo done"
	f.start("a1", look)
	f.awaitList("a1 exit 0")
	f.start("a2", "ls $HOME/mine ${TMPDIR:-/tmp}/mine mine 2>/dev/null || true; "+look)
	f.awaitOutput("a2", "done")
	f.awaitList("a1 exit 0", "a2 exit 0")
	if got := f.runner.output("a2"); !strings.HasSuffix(got, "hello\ndone\n") || strings.Contains(got, "mine") {
		t.Errorf("the second attempt sees: %q", got)
	}
}

func stopEndsAllAndLeavesNothing(_ *testing.T, f *fixture) {
	mark := unique()
	f.start("a1", fmt.Sprintf("trap '' TERM; (trap '' TERM; setsid sleep %[1]s & sleep %[1]s) & chmod -w .; echo ready; sleep %[1]s; sleep %[1]s", mark))
	f.awaitOutput("a1", "ready")
	f.stop("a1")
	f.awaitGone(mark)
	f.awaitList()
	f.stop("a1")
}

// In a container forgexec is process 1: nobody else reaps, and a signal that it does
// not take goes nowhere.
func orphansAreReapedAndSIGTERMIsPassedOn(t *testing.T, f *fixture) {
	f.start("a1",
		"(sh -c 'echo $$ >orphan' &); while [ ! -s orphan ]; do sleep 0.05; done; while [ -e /proc/$(cat orphan) ]; do sleep 0.05; done; echo reaped",
		"trap 'echo told; exit 7' TERM; kill -TERM $PPID; while :; do sleep 0.05; done 2>/dev/null") // where the shell tells of its sleep
	f.awaitList("a1 exit 0")
	if got, want := f.runner.story("a1"), "start 1, end 1: 0, start 2, end 2: 7, STOPPED"; got != want {
		t.Errorf("reported: %s; want %s", got, want)
	}
	if got := f.runner.output("a1"); !strings.HasSuffix(got, "reaped\ntold\n") {
		t.Errorf("output: %q", got)
	}
}

func stopOfNothingIsNoError(t *testing.T, f *fixture) {
	f.stop("never-started")
	f.start("a1", "true")
	f.awaitList("a1 exit 0")
	f.stop("a1")
	f.stop("a1")
	if got := f.list(); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func aRestartedEngineKnowsWhatRuns(_ *testing.T, f *fixture) {
	mark := unique()
	f.start("a1", "echo ready; sleep "+mark)
	f.start("a2", "true")
	f.awaitOutput("a1", "ready")
	f.awaitList("a1 running", "a2 exit 0")
	f.restart()
	f.awaitList("a1 running", "a2 exit 0")
	f.stop("a1")
	f.awaitGone(mark)
	f.awaitList("a2 exit 0")
	f.stop("a2")
	f.awaitList()
}

func aKilledForgexecIsNotRunning(_ *testing.T, f *fixture) {
	mark := unique()
	kill, command := f.config.Kill, ""
	if kill == nil {
		kill, command = func(*testing.T, engine.Engine, string) {}, "kill -9 $PPID; "
	}
	f.start("a1", fmt.Sprintf("setsid sleep %[1]s & echo ready; sleep 0.2; %[2]s sleep %[1]s", mark, command))
	f.awaitOutput("a1", "ready")
	kill(f.t, f.engine, "a1"+f.suffix)
	f.awaitEnd("a1")
	f.stop("a1")
	f.awaitGone(mark)
	f.awaitList()
}

func tailSaysWhyItDidNotAttach(t *testing.T, f *fixture) {
	spec := f.spec("a1", "true")
	spec.Runner.Token = "another"
	if err := f.engine.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	f.awaitList("a1 exit 3")
	if text, err := f.engine.Tail(t.Context(), spec.Attempt); err != nil || !strings.Contains(text, "no such attempt") {
		t.Errorf("tail: %q, %v", text, err)
	}
	if text, err := f.engine.Tail(t.Context(), "never-started"); err != nil || text != "" {
		t.Errorf("tail of nothing: %q, %v", text, err)
	}
}

func whatCannotBeStartedIsInvalid(t *testing.T, f *fixture) {
	for name, change := range map[string]func(*engine.Spec){
		"no attempt":    func(s *engine.Spec) { s.Attempt = "" },
		"a path":        func(s *engine.Spec) { s.Attempt = "../a1" },
		"upper case":    func(s *engine.Spec) { s.Attempt = "A1" },
		"41 characters": func(s *engine.Spec) { s.Attempt = strings.Repeat("a", 41) },
		"no runner":     func(s *engine.Spec) { s.Runner.URL = "" },
		"no token":      func(s *engine.Spec) { s.Runner.Token = "" },
	} {
		spec := f.spec("a1", "true")
		change(&spec)
		if err := f.engine.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want fault.Invalid", name, err)
		}
	}
	if got := f.list(); len(got) != 0 {
		t.Errorf("started: %q", got)
	}
}

// unique is a number of seconds that no other process sleeps for.
func unique() string { return strconv.Itoa(100_000_000 + rand.IntN(100_000_000)) } //nolint:gosec // not a secret
