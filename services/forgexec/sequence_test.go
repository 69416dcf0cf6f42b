package forgexec

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
)

const (
	onFailure = configv1.Command_WHEN_FAILURE
	always    = configv1.Command_WHEN_ALWAYS
)

// when has some steps of the plan run at other times.
func (s *fakeScheduler) when(all map[int]configv1.Command_When) *fakeScheduler {
	for number, when := range all {
		s.plan.Steps[number-1].When = when
	}
	return s
}

func TestWhichStepsRunAfterWhat(t *testing.T) {
	for name, c := range map[string]struct {
		steps []string
		when  map[int]configv1.Command_When
		want  []string
	}{
		"nothing failed": {
			[]string{"true", "echo never", "echo sweep"},
			map[int]configv1.Command_When{2: onFailure, 3: always},
			[]string{"start 1", "end 1 exit 0", "start 3", `"sweep\n"`, "end 3 exit 0", "DONE"},
		},
		"a step failed": {
			[]string{"exit 4", "echo never", "echo logs", "echo sweep"},
			map[int]configv1.Command_When{3: onFailure, 4: always},
			[]string{"start 1", "end 1 exit 4", "start 3", `"logs\n"`, "end 3 exit 0", "start 4", `"sweep\n"`, "end 4 exit 0", "DONE"},
		},
		"what is there for a failure fails": {
			[]string{"exit 4", "exit 5", "echo sweep"},
			map[int]configv1.Command_When{2: onFailure, 3: always},
			[]string{"start 1", "end 1 exit 4", "start 2", "end 2 exit 5", "start 3", `"sweep\n"`, "end 3 exit 0", "DONE"},
		},
		"what always runs fails": {
			[]string{"exit 3", "echo logs", "echo never"},
			map[int]configv1.Command_When{1: always, 2: onFailure},
			[]string{"start 1", "end 1 exit 3", "start 2", `"logs\n"`, "end 2 exit 0", "DONE"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, c.steps...).when(c.when)
			s.wantStory(t, s.forgexec(t), append([]string{"source 1 entries"}, c.want...)...)
		})
	}
}

func TestOnlyWhatAlwaysRunsFollowsACancellation(t *testing.T) {
	s := newScheduler(t, "echo ready; sleep 1000", "echo never", "echo never", "echo sweep", "echo swept").
		when(map[int]configv1.Command_When{3: onFailure, 4: always, 5: always})
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	s.cancelled <- "enough"
	s.wantStory(t, f, "source 1 entries", "start 1", `"ready\n"`, "end 1 exit 143 stopped",
		"start 4", `"sweep\n"`, "end 4 exit 0", "start 5", `"swept\n"`, "end 5 exit 0", "CANCELLED enough")
}

func TestWhatIsThereForAFailureFollowsATimeout(t *testing.T) {
	s := newScheduler(t, "sleep 1000", "echo logs", "echo sweep").when(map[int]configv1.Command_When{2: onFailure, 3: always})
	s.plan.Timeout = durationpb.New(2 * time.Second) // by then the first step runs
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 143 stopped",
		"start 2", `"logs\n"`, "end 2 exit 0", "start 3", `"sweep\n"`, "end 3 exit 0", "TIMED_OUT the build ran into its timeout of 2s")
}

func TestWhatFollowsACancellationHasATimeOfItsOwn(t *testing.T) {
	s := newScheduler(t, "echo ready; sleep 1000", "echo sweep; sleep 1000", "echo never").when(map[int]configv1.Command_When{2: always, 3: always})
	s.plan.Cleanup = durationpb.New(3 * time.Second)
	f := s.forgexec(t)
	s.awaitOutput(t, "ready")
	s.cancelled <- "enough"
	s.wantStory(t, f, "source 1 entries", "start 1", `"ready\n"`, "end 1 exit 143 stopped", "start 2", `"sweep\n"`, "end 2 exit 143 stopped", "CANCELLED enough")
}

func TestVariablesReachTheStepsThatFollow(t *testing.T) {
	s := newScheduler(t,
		`echo "VERSION=1.2=3" >>"$FORGE_ENV"; printf 'NOTES<<END\none\n\ntwo\nEND\nEMPTY=\n' >>"$FORGE_ENV"`,
		`echo "$VERSION|$NOTES|${EMPTY-unset}"; echo VERSION=4 >>"$FORGE_ENV"`,
		`echo "$VERSION"; ls -A; case $FORGE_ENV in $FORGE_WORKSPACE/*) echo within;; esac`)
	s.plan.Outputs = []string{"VERSION", "NOTES", "UNSET"}
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0",
		"start 2", `"1.2=3|one\n\ntwo|\n"`, "end 2 exit 0", "start 3", `"4\nfile\n"`, "end 3 exit 0",
		`outputs map["NOTES":"one\n\ntwo" "VERSION":"4"]`, "DONE")
}

func TestSecretsAreMaskedInWhatIsHandedOn(t *testing.T) {
	s := newScheduler(t, `echo "URL=https://me:$TOKEN@host" >>"$FORGE_ENV"`)
	s.plan.Secrets, s.plan.Outputs = map[string]string{"TOKEN": "hunter2-hunter2"}, []string{"URL"}
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", "end 1 exit 0",
		`"forge: output URL holds a secret, which is handed on as ***\n"`, `outputs map["URL":"https://me:***@host"]`, "DONE")
}

func TestWhatIsNoVariableFailsItsStep(t *testing.T) {
	for write, want := range map[string]string{
		`echo nonsense >>"$FORGE_ENV"`:                       "FORGE_ENV, line 1: expected NAME=value, or NAME<<END and a line END after the value",
		`printf 'A=1\n\n9B=2\n' >>"$FORGE_ENV"`:              `FORGE_ENV, line 3: "9B" cannot be the name of a variable: letters, digits and _, no digit first`,
		`echo FORGE_SHA=0 >>"$FORGE_ENV"`:                    "FORGE_ENV, line 1: FORGE_SHA is not for steps to set",
		`echo LD_PRELOAD=x >>"$FORGE_ENV"`:                   "FORGE_ENV, line 1: LD_PRELOAD is not for steps to set",
		`echo TRACEPARENT=x >>"$FORGE_ENV"`:                  "FORGE_ENV, line 1: TRACEPARENT is not for steps to set",
		`echo TRACESTATE=x >>"$FORGE_ENV"`:                   "FORGE_ENV, line 1: TRACESTATE is not for steps to set",
		`echo BAGGAGE=x >>"$FORGE_ENV"`:                      "FORGE_ENV, line 1: BAGGAGE is not for steps to set",
		`printf 'A<<END\nx\n' >>"$FORGE_ENV"`:                `FORGE_ENV, line 1: there is no line "END" after it, at which the value ends`,
		`head -c 70000 /dev/zero | tr '\0' x >>"$FORGE_ENV"`: "FORGE_ENV holds more than 64 KiB: put large values into files",
		`printf 'A=\000\n' >>"$FORGE_ENV"`:                   "FORGE_ENV holds a NUL, which no variable can",
		`rm "$FORGE_ENV"`:                                    "the file of FORGE_ENV cannot be read: a step removed it, or put something else in its place",
		`rm "$FORGE_ENV"; ln -s /etc/passwd "$FORGE_ENV"`:    "the file of FORGE_ENV cannot be read: a step removed it, or put something else in its place",
		`rm "$FORGE_ENV"; mkfifo "$FORGE_ENV"`:               "the file of FORGE_ENV is none any more: a step put something else in its place",
		`rm "$FORGE_ENV"; mkdir "$FORGE_ENV"`:                "the file of FORGE_ENV is none any more: a step put something else in its place",
	} {
		t.Run(write, func(t *testing.T) {
			s := newScheduler(t, write, "echo never")
			s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", fmt.Sprintf("%q", "forge: "+want+"\n"), "end 1 exit 1", "DONE")
		})
	}
}

func TestCommandsRunInTheFolderThatIsAskedFor(t *testing.T) {
	source := tarball(t, folder("top/"), folder("top/api/"), file("top/api/main.go", ""), file("top/file", ""), symlink("top/alias", "api"), symlink("top/out", "/etc"))
	for name, want := range map[string][]string{
		"api":     {"start 1", `"main.go\n"`, "end 1 exit 0", "DONE"},
		"alias":   {"start 1", `"main.go\n"`, "end 1 exit 0", "DONE"},
		"./api/.": {"start 1", `"main.go\n"`, "end 1 exit 0", "DONE"},
		"none":    {"NOT_RUNNABLE there is no folder none in the workspace, which working_directory names"},
		"file":    {"NOT_RUNNABLE working_directory file is no folder"},
		"out":     {"NOT_RUNNABLE working_directory out leads out of the workspace"},
		"../..":   {"NOT_RUNNABLE working_directory ../.. leads out of the workspace"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, "ls")
			s.source, s.plan.WorkingDirectory = source, name
			s.wantStory(t, s.forgexec(t), append([]string{"source 5 entries"}, want...)...)
		})
	}
}

func TestBashFailsWhereAPipeDoes(t *testing.T) {
	for shell, want := range map[configv1.Shell]string{configv1.Shell_SHELL_BASH: "end 1 exit 1", configv1.Shell_SHELL_SH: "end 1 exit 0"} {
		s := newScheduler(t, "false | cat")
		s.plan.Shell = shell
		s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", want, "DONE")
	}
}

// A line of the file is read as it stands, whoever wrote it and however it ends.
func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\nB<<E\nx\nE\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "env")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		e := &envFile{path: path, set: map[string]string{}}
		if err := e.read(); err != nil {
			return
		}
		for name, value := range maps.All(e.set) {
			if !envName.MatchString(name) || strings.ContainsRune(value, 0) || isOurs(name) {
				t.Errorf("%q: %q=%q", text, name, value)
			}
		}
	})
}
