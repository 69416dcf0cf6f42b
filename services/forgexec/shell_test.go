package forgexec

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// stubborn prints the ids of two processes that no SIGHUP ends.
const stubborn = `trap '' HUP; echo $$; sh -c 'echo $$; while :; do sleep 1; done'`

// printsTwo is that both are there.
func printsTwo(printed string) bool {
	return len(strings.Fields(printed)) == 2 && strings.HasSuffix(printed, "\n")
}

func TestShellsAreBesideEachOther(t *testing.T) {
	s := newScheduler(t, "mkdir -p sub; echo half done >left; exit 3")
	f := s.keeps(t, soon)
	counts := s.opens(t, running("sh", "-c", "cat; echo the end >&2"), true)
	counts.types("one\n")
	counts.says(t, "one\n")
	size := &schedulerv1.ShellTerminal{Columns: 80, Rows: 24, Type: "dumb"}
	typed := s.opens(t, &schedulerv1.ShellResponse_Opening{Command: []string{"sh"}, Terminal: size}, true)
	typed.types("cat left; stty size; echo \"$TERM $FORGE_SHELL\"\n")
	typed.says(t, "half done\r\n24 80\r\ndumb true\r\n")
	typed.inputs <- &schedulerv1.ShellInput{Resized: &schedulerv1.ShellTerminal{Columns: 132, Rows: 50}}
	typed.types("stty size\n")
	typed.says(t, "50 132\r\n")
	// Ctrl-C ends what runs there, and not the shell.
	typed.types("echo sleeps; sleep 1000\n")
	typed.says(t, "\nsleeps\r\n")
	typed.types("\x03")
	typed.types("echo awake: $?\n")
	typed.says(t, "awake: 130\r\n")
	typed.types("exit 4\n")
	typed.ends(t, 4)
	// The other one goes on.
	counts.types("two\n")
	counts.says(t, "one\ntwo\n")
	stopped := s.opens(t, running("sh", "-c", "echo ready; sleep 1000"), true)
	stopped.says(t, "ready\n")
	stopped.inputs <- &schedulerv1.ShellInput{Signal: int32(syscall.SIGTERM)}
	stopped.ends(t, 128+int32(syscall.SIGTERM))
	counts.inputs <- &schedulerv1.ShellInput{End: true}
	if printed := counts.ends(t, 0); printed != "one\ntwo\nthe end\n" {
		t.Errorf("printed %q", printed)
	}
	s.kept.remove()
	f.wantExit(t, exitReported)
}

// Whoever has opened a shell is gone: what it runs ends, whatever it heeds.
func TestAShellEndsWithWhoeverOpenedIt(t *testing.T) {
	s := newScheduler(t, "exit 3")
	s.keeps(t, soon)
	for name, opening := range map[string]*schedulerv1.ShellResponse_Opening{
		"pipes":      running("sh", "-c", stubborn),
		"a terminal": {Command: []string{"sh", "-c", stubborn}, Terminal: &schedulerv1.ShellTerminal{Columns: 80, Rows: 24}},
	} {
		t.Run(name, func(t *testing.T) {
			one := s.opens(t, opening, true)
			printed := one.prints(t, printsTwo)
			close(one.left)
			wantGone(t, []byte(printed))
		})
	}
	another := s.opens(t, running("echo", "here"), true)
	if printed := another.ends(t, 0); printed != "here\n" {
		t.Errorf("printed %q", printed)
	}
}

// The end of a kept container's time is that of its shells, also where no scheduler says so.
func TestShellsEndWithTheirContainersTime(t *testing.T) {
	for name, away := range map[string]bool{"told": false, "Forge is away": true} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, "exit 3")
			f := s.keeps(t, 3*time.Second)
			one := s.opens(t, running("sh", "-c", stubborn), true)
			printed := one.prints(t, printsTwo)
			if away {
				s.kill()
			}
			f.wantExit(t, exitReported)
			wantGone(t, []byte(printed))
			if _, exited := one.text(); exited != nil {
				t.Errorf("it says that it ended by itself: %v", exited)
			}
		})
	}
}

// What prints waits for who reads, and nothing is lost. Other shells do not wait for it.
func TestAShellWaitsForWhoReads(t *testing.T) {
	const last = 300_000
	s := newScheduler(t, "exit 3")
	f := s.keeps(t, soon)
	slow := s.opens(t, running("seq", strconv.Itoa(last)), false)
	endless := s.opens(t, running("sh", "-c", "echo $$ >pid; exec yes"), false)
	other := s.opens(t, running("sh", "-c", "until test -s pid; do sleep 0.1; done; cat pid"), true)
	other.ends(t, 0)
	close(slow.reads)
	printed := slow.ends(t, 0)
	if lines := strings.Split(printed, "\n"); len(lines) != last+1 || lines[0] != "1" || lines[last-1] != strconv.Itoa(last) {
		t.Errorf("%d lines, to %q", len(lines), lines[max(0, len(lines)-2)])
	}
	close(endless.left)
	kittest.Eventually(t, soon, func() error {
		looks := s.opens(t, running("sh", "-c", "kill -0 $(cat pid)"), true)
		<-looks.over
		if _, exited := looks.text(); exited.GetExitCode() == 0 {
			return errors.New("it goes on")
		}
		return nil
	})
	s.kept.remove()
	f.wantExit(t, exitReported)
}

// Whoever opens a shell has the job's secrets where the scheduler sends them, not else.
func TestAShellHasNoSecretsOfTheSteps(t *testing.T) {
	const secret = "hunter2hunter2"
	s := newScheduler(t, `echo "DERIVED=$TOKEN-1" >>$FORGE_ENV; echo MINE=ok >>$FORGE_ENV; exit 3`)
	s.plan.Environment = map[string]string{"COPY": "it is " + secret, "MOOD": "good", "TRACEPARENT": "00-1"}
	s.plan.Secrets = map[string]string{"TOKEN": secret}
	s.keeps(t, soon)
	printed := s.opens(t, running("env"), true).ends(t, 0)
	for _, not := range []string{secret, "TOKEN", "COPY", "DERIVED", "TRACEPARENT", testToken, ours} {
		if strings.Contains(printed, not) {
			t.Errorf("%s is in\n%s", not, printed)
		}
	}
	for _, want := range []string{"MOOD=good\n", "MINE=ok\n", "FORGE_SHELL=true\n"} {
		if !strings.Contains("\n"+printed, "\n"+want) {
			t.Errorf("%q is not in\n%s", want, printed)
		}
	}
	with := running("env")
	with.Secrets = map[string]string{"TOKEN": "new" + secret}
	if printed := s.opens(t, with, true).ends(t, 0); strings.Count(printed, secret) != 1 || !strings.Contains(printed, "TOKEN=new"+secret+"\n") {
		t.Errorf("printed\n%s", printed)
	}
}

// What a step that built an image has set is there as what the commands have set.
func TestAShellKnowsTheImageThatWasBuilt(t *testing.T) {
	const reference = "registry.example/shop@sha256:1"
	s := newScheduler(t, "echo TAG=v1 >>$FORGE_ENV", "", `test "$IMAGE" = nothing`)
	s.plan.Steps[1].Image = &schedulerv1.PlannedStep_ImageStep{Output: "IMAGE"}
	s.image = func(_ *schedulerv1.BuildImageRequest_Begin, stream imageServer) error {
		return (&taker{imageServer: stream}).built(reference)
	}
	s.keeps(t, soon)
	if printed := s.opens(t, running("sh", "-c", `echo "$IMAGE $TAG"; pwd`), true).ends(t, 0); !strings.HasPrefix(printed, reference+" v1\n/") || !strings.HasSuffix(printed, "/workspace\n") {
		t.Errorf("printed %q", printed)
	}
}
