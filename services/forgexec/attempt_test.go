package forgexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestStepsShareTheWorkspaceAndAreReported(t *testing.T) {
	s := newScheduler(t, "cat file; echo two > file; echo oops >&2", "cat file")
	s.wantStory(t, s.forgexec(t),
		"source 1 entries",
		"start 1", `"content\noops\n"`, "end 1 exit 0",
		"start 2", `"two\n"`, "end 2 exit 0",
		"DONE")
	if s.hellos[0].GetHasPlan() || s.hellos[0].GetHasSource() || len(s.hellos[0].GetRunnerId()) != 32 {
		t.Errorf("hello: %v", s.hellos[0])
	}
}

func TestHowStepsEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string
		want  []string
	}{
		{"the first failure is the last step", []string{"exit 3", "echo never"}, []string{"start 1", "end 1 exit 3", "DONE"}},
		{"sh -e", []string{"false; echo never"}, []string{"start 1", "end 1 exit 1", "DONE"}},
		{"a signal", []string{"kill -9 $$"}, []string{"start 1", "end 1 exit 137", "DONE"}},
		{"stdin is empty", []string{"cat"}, []string{"start 1", "end 1 exit 0", "DONE"}},
		{"no steps", nil, []string{"DONE"}},
		{
			"the workspace is removed",
			[]string{`rm -r "$FORGE_WORKSPACE"`, "echo never"},
			[]string{"start 1", "end 1 exit 0", "NOT_RUNNABLE the workspace is gone: an earlier step removed it"},
		},
		{
			"more than a command line holds",
			[]string{"true " + strings.Repeat("x", 200_000)},
			[]string{"NOT_RUNNABLE step 1 cannot be started: start /bin/sh: argument list too long"},
		},
		{
			"a background process that holds the output",
			[]string{"sleep 1000 & echo done", "echo next"},
			[]string{
				"start 1", fmt.Sprintf("%q", "done\n"+backgroundNotice), "end 1 exit 0",
				"start 2", `"next\n"`, "end 2 exit 0", "DONE",
			},
		},
		{
			"a background process for the next step",
			[]string{"sleep 1000 >/dev/null 2>&1 & echo $! >pid", "kill -0 $(cat pid)"},
			[]string{"start 1", "end 1 exit 0", "start 2", "end 2 exit 0", "DONE"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScheduler(t, c.steps...)
			s.wantStory(t, s.forgexec(t), append([]string{"source 1 entries"}, c.want...)...)
		})
	}
}

func TestAnUnknownCommandIsTheBuildsOwnFailure(t *testing.T) {
	s := newScheduler(t, "no-such-command-here")
	s.forgexec(t).wantExit(t, exitReported)
	if story := s.story(); !strings.Contains(story, "not found") || !strings.Contains(story, "end 1 exit 127\nDONE") {
		t.Errorf("reported:\n%s", story)
	}
}

func TestCommandsSeeThePlansEnvironmentAndNoneOfForgexecs(t *testing.T) {
	s := newScheduler(t, "env")
	s.plan.Environment = map[string]string{"CI": "true", "IMAGE_SAYS": "plan", "TEXT": "two\nlines"}
	f := s.forgexec(t, "IMAGE_SAYS=image", "KEPT=yes", "FORGE_RUNNER_CA=", "OLDPWD=/", "HOME=")
	f.wantExit(t, exitReported)
	env := "\n" + string(s.output())
	for _, want := range []string{"\nCI=true\n", "\nIMAGE_SAYS=plan\n", "\nKEPT=yes\n", "\nTEXT=two\nlines\n", "\nPATH=", "\nHOME=/", "\nFORGE_WORKSPACE=/"} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is not in the environment:%s", want, env)
		}
	}
	if strings.Contains(env, testToken) || strings.Contains(env, "FORGE_RUNNER") {
		t.Errorf("forgexec's own is in the environment:%s", env)
	}
}

func TestCommandsInheritNothingButTheirOutput(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	s := newScheduler(t, "if echo >&3; then echo inherited; fi 2>/dev/null")
	s.wantStory(t, s.forgexecWith(t, lock), "source 1 entries", "start 1", "end 1 exit 0", "DONE")
}

func TestTheEnginesNoticeOpensTheLog(t *testing.T) {
	s := newScheduler(t, "echo one", "echo two")
	s.wantStory(t, s.forgexec(t, "FORGE_RUNNER_NOTICE=image ignored"),
		"source 1 entries", "start 1", `"image ignored\none\n"`, "end 1 exit 0", "start 2", `"two\n"`, "end 2 exit 0", "DONE")
}

func TestMissingSubmodulesAreSaidInTheLog(t *testing.T) {
	s := newScheduler(t, "echo one", "echo two")
	s.source = tarball(t, folder("top/"), file("top/.gitmodules", "[submodule \"lib\"]\n"))
	s.wantStory(t, s.forgexec(t, "FORGE_RUNNER_NOTICE=image ignored"), "source 1 entries",
		"start 1", fmt.Sprintf("%q", "image ignored\n"+submodulesNotice+"\none\n"), "end 1 exit 0", "start 2", `"two\n"`, "end 2 exit 0", "DONE")
}

func TestCancelStopsTheWholeGroup(t *testing.T) {
	s := newScheduler(t, `trap 'echo stopping; exit 9' TERM; (echo ready; sleep 1000; echo never) & wait`, "echo never")
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	s.cancelled <- "superseded by 3f2a91c"
	s.wantStory(t, f, "source 1 entries", "start 1", `"ready\nstopping\n"`, "end 1 exit 9 stopped", "CANCELLED superseded by 3f2a91c")
}

func TestTimeoutKillsWhatIgnoresSIGTERM(t *testing.T) {
	s := newScheduler(t, `trap '' TERM; echo $$; sh -c 'echo $$; while :; do sleep 1; done'`)
	s.plan.Timeout, s.plan.Grace = durationpb.New(3*time.Second), durationpb.New(300*time.Millisecond)
	f := s.forgexec(t)
	f.wantExit(t, exitReported)
	if story := s.story(); !strings.HasSuffix(story, "end 1 exit 137 stopped\nTIMED_OUT the build ran into its timeout of 3s") {
		t.Errorf("reported:\n%s", story)
	}
	wantGone(t, s.output())
}

// A daemon that left the group hears no SIGTERM, and does not outlive the steps.
func TestCancelEndsWhatHasLeftTheGroup(t *testing.T) {
	const daemon = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & "
	s := newScheduler(t, daemon+daemon+"wait")
	f := s.forgexec(t)
	kittest.Eventually(t, soon, func() error {
		if printed := s.output(); len(strings.Fields(string(printed))) != 2 {
			return fmt.Errorf("printed %q", printed)
		}
		return nil
	})
	s.cancelled <- "enough"
	f.wantExit(t, exitReported)
	if story := s.story(); !strings.HasSuffix(story, "end 1 exit 143 stopped\nCANCELLED enough") {
		t.Errorf("reported:\n%s", story)
	}
	wantGone(t, s.output())
}

func TestSIGTERMIsPassedOnAndReported(t *testing.T) {
	s := newScheduler(t, "echo ready; sleep 1000")
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.wantStory(t, f, "source 1 entries", "start 1", `"ready\n"`, "end 1 exit 143 stopped", "STOPPED forgexec was told to stop")
}

func TestDaemonsOfStepsDoNotOutliveTheLast(t *testing.T) {
	const daemon = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
	s := newScheduler(t, daemon, "sh -c '"+daemon+"'")
	s.forgexec(t).wantExit(t, exitReported)
	wantGone(t, s.output())
}

// wantGone looks for the processes whose ids were printed.
func wantGone(t *testing.T, printed []byte) {
	t.Helper()
	pids := strings.Fields(string(printed))
	if len(pids) != 2 {
		t.Fatalf("printed %q, want two process ids", printed)
	}
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, soon, func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there", pid)
			}
			return nil
		})
	}
}

func TestWithoutASourceNothingIsStarted(t *testing.T) {
	whole := tarball(t, file("top/file", strings.Repeat("content ", 1000)))
	for _, c := range []struct {
		name, sourceError string
		source            []byte
		want              string
	}{
		{name: "the scheduler has none", sourceError: "GitHub answers 502", want: "NO_SOURCE GitHub answers 502"},
		{name: "half of it", source: whole[:len(whole)/2], want: "NO_SOURCE read the source: unexpected EOF"},
		{name: "no gzip", source: []byte("<html>502 Bad Gateway</html>"), want: "NO_SOURCE read the source: gzip: invalid header"},
		{name: "a hostile one", source: tarball(t, file("top/../../x", "")), want: `SOURCE_REFUSED the source holds "top/../../x", which leads outside of the workspace`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScheduler(t, "echo never")
			s.sourceError = c.sourceError
			if c.source != nil {
				s.source = c.source
			}
			s.wantStory(t, s.forgexec(t), c.want)
		})
	}
}

func TestAWorkspaceThatCannotBeUsedIsReported(t *testing.T) {
	taken := t.TempDir()
	if err := os.WriteFile(filepath.Join(taken, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newScheduler(t, "echo never")
	f := s.forgexec(t, "FORGE_WORKSPACE="+taken)
	s.wantStory(t, f, "NOT_RUNNABLE the workspace "+taken+" (FORGE_WORKSPACE) is not empty: it holds mine")
	if _, err := os.Stat(filepath.Join(taken, "mine")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestTheStateFileSaysWhoAndHow(t *testing.T) {
	s := newScheduler(t, "true")
	state := filepath.Join(t.TempDir(), "state")
	f := s.forgexec(t, "FORGE_RUNNER_STATE="+state)
	f.wantExit(t, exitReported)
	text, err := os.ReadFile(state)
	if want := fmt.Sprintf("pid %d\nexit 0\n", f.cmd.Process.Pid); err != nil || string(text) != want {
		t.Errorf("state: %q, %v; want %q", text, err, want)
	}
}

func TestShellIsFoundWhereTheImageHasIt(t *testing.T) {
	bin := t.TempDir()
	for shell, c := range map[configv1.Shell]struct {
		program string
		want    []string
	}{
		configv1.Shell_SHELL_UNSPECIFIED: {"", []string{"/bin/sh", "-e", "-c"}},
		configv1.Shell_SHELL_BASH:        {"bash", []string{filepath.Join(bin, "bash"), "-eo", "pipefail", "-c"}},
	} {
		if c.program != "" {
			must(t, os.WriteFile(filepath.Join(bin, c.program), []byte("#!"), 0o755))
		}
		got, err := shellOf(shell, "relative:/nowhere:"+bin)
		if c.program == "bash" && err == nil && got[0] == "/bin/bash" { // of this host
			got[0] = c.want[0]
		}
		kittest.Want(t, strings.Join(got, " "), strings.Join(c.want, " "), shell, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
