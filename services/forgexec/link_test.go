package forgexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// counting prints the numbers up to n, slowly, and counts how often it was run.
func counting(n int) (run, printed string) {
	var want strings.Builder
	for i := range n {
		fmt.Fprintln(&want, i)
	}
	return fmt.Sprintf("echo x >>ran; i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); sleep 0.01; done; cat ran", n), want.String() + "x\n"
}

func TestARestartOfTheSchedulerLosesAndDoublesNothing(t *testing.T) {
	run, printed := counting(60)
	s := newScheduler(t, run)
	f := s.forgexec(t)
	for _, seen := range []string{"1\n", "20\n", "40\n"} {
		s.awaitOutput(t, "\n"+seen)
		s.kill()
		s.start(t)
	}
	s.wantStory(t, f, "source 1 entries", "start 1", fmt.Sprintf("%q", printed), "end 1 exit 0", "DONE")
	if len(s.hellos) != 4 {
		t.Errorf("attached %d times, want 4", len(s.hellos))
	}
	for _, again := range s.hellos[1:] {
		if !again.GetHasPlan() || !again.GetHasSource() || again.GetRunnerId() != s.hellos[0].GetRunnerId() {
			t.Errorf("hello after a restart: %v", again)
		}
	}
}

func TestLostAcknowledgementsLoseAndDoubleNothing(t *testing.T) {
	run, printed := counting(100)
	s := newScheduler(t, run)
	s.cutEvery = 5
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", fmt.Sprintf("%q", printed), "end 1 exit 0", "DONE")
	if len(s.hellos) < 4 {
		t.Errorf("attached %d times only", len(s.hellos))
	}
}

func TestTheAgeOfAConnectionBreaksNoStream(t *testing.T) {
	s := newScheduler(t, "echo begin; sleep 5; echo end")
	s.age = 2 * time.Second
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", `"begin\nend\n"`, "end 1 exit 0", "DONE")
	if len(s.hellos) != 1 {
		t.Errorf("attached %d times, want once", len(s.hellos))
	}
}

func TestAnInterruptedSourceComesAnew(t *testing.T) {
	s := newScheduler(t, "ls; cat file")
	s.breakSource = true
	s.wantStory(t, s.forgexec(t), "source 1 entries", "start 1", `"file\ncontent\n"`, "end 1 exit 0", "DONE")
}

func TestForgexecWaitsForASchedulerThatIsNotThereYet(t *testing.T) {
	s := newScheduler(t, "echo hello")
	s.start(t)
	s.kill()
	f := s.forgexec(t)
	s.start(t)
	s.wantStory(t, f, "source 1 entries", "start 1", `"hello\n"`, "end 1 exit 0", "DONE")
}

func TestARunnerThatIsNotWantedEndsQuietly(t *testing.T) {
	for _, refusal := range []error{
		status.Error(codes.FailedPrecondition, "attempt 2 took its place"),
		status.Error(codes.Unauthenticated, "no such attempt"),
	} {
		s := newScheduler(t, "echo never")
		s.refuse(refusal)
		s.forgexec(t).wantExit(t, exitRefused)
		if s.story() != "" {
			t.Errorf("reported:\n%s", s.story())
		}
	}
}

func TestARefusedTokenEndsIt(t *testing.T) {
	s := newScheduler(t, "echo never")
	s.forgexec(t, "FORGE_RUNNER_TOKEN=another").wantExit(t, exitRefused)
}

func TestCommandsOfALostAttemptAreKilledAtOnce(t *testing.T) {
	s := newScheduler(t, `trap 'echo polite' TERM; echo $$; sh -c 'echo $$; sleep 1000'`, "echo never")
	s.plan.Grace.Seconds = 1000
	f := s.forgexec(t)
	kittest.Eventually(t, soon, func() error {
		if n := bytes.Count(s.output(), []byte("\n")); n != 2 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	s.refuse(status.Error(codes.FailedPrecondition, "attempt 2 took its place"))
	s.kill()
	s.start(t)
	f.wantExit(t, exitRefused)
	wantGone(t, s.output())
}

func TestHeartbeatsGoOutWhileASilentStepRuns(t *testing.T) {
	s := newScheduler(t, "while [ ! -e stop ]; do sleep 0.01; done")
	workspace := filepath.Join(t.TempDir(), "w")
	f := s.forgexec(t, "FORGE_WORKSPACE="+workspace)
	kittest.Eventually(t, soon, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.heartbeats < 3 {
			return fmt.Errorf("%d heartbeats", s.heartbeats)
		}
		return nil
	})
	s.cancelled <- "enough"
	f.wantExit(t, exitReported)
}

func TestOutputWaitsWhileTheSchedulerIsAway(t *testing.T) {
	const size = 3 * maxKept
	s := newScheduler(t, fmt.Sprintf(`echo ready; until [ -e "$HOME/go" ]; do sleep 0.01; done
		head -c %d /dev/zero | tee "$HOME/printed"; echo; echo done`, size))
	home := t.TempDir()
	f := s.forgexec(t, "HOME="+home)
	s.awaitOutput(t, "ready")
	s.kill()
	if err := os.WriteFile(home+"/go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var before int64
	kittest.Eventually(t, soon, func() error { // until it stands still
		info, err := os.Stat(home + "/printed")
		if err != nil {
			return err
		}
		was := before
		if before = info.Size(); before < maxKept || before != was {
			return fmt.Errorf("%d bytes printed", before)
		}
		return nil
	})
	if before > maxKept+1<<20 {
		t.Errorf("%d bytes were taken while nobody listened", before)
	}
	s.start(t)
	f.wantExit(t, exitReported)
	want := append(append([]byte("ready\n"), make([]byte, size)...), "\ndone\n"...)
	if got := s.output(); !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d", len(got), len(want))
	}
}

func TestTheWindowBlocksOutputAndNothingElse(t *testing.T) {
	w := newWindow()
	output := func(n int) *schedulerv1.Report {
		return &schedulerv1.Report{Event: &schedulerv1.Report_Output{Output: &schedulerv1.Output{Data: make([]byte, n)}}}
	}
	w.bound(maxUnderWay)
	w.add(output(maxUnderWay))
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		w.add(output(maxKept - maxUnderWay))
	}()
	select {
	case <-kept:
		t.Error("more output was taken than is to be under way")
	case <-time.After(50 * time.Millisecond):
	}
	w.bound(maxKept)
	<-kept
	w.add(&schedulerv1.Report{Event: &schedulerv1.Report_StepStarted{StepStarted: &schedulerv1.StepStarted{}}})
	added := make(chan struct{})
	go func() {
		defer close(added)
		w.add(output(1))
	}()
	select {
	case <-added:
		t.Error("more output was taken than may be kept")
	case <-time.After(50 * time.Millisecond):
	}
	if done, err := w.ack(1); err != nil || done {
		t.Errorf("ack: %v, %v", done, err)
	}
	<-added
	if got := w.after(1); len(got) != 3 || got[0].GetSequence() != 2 || got[2].GetSequence() != 4 {
		t.Errorf("kept: %v", got)
	}
	w.add(endReport(&schedulerv1.Ended{}))
	if done, err := w.ack(5); err != nil || !done {
		t.Errorf("after the last: %v, %v", done, err)
	}
}

func TestAnAcknowledgementThatCannotBeIsAnError(t *testing.T) {
	w := newWindow()
	for range 3 {
		w.add(&schedulerv1.Report{Event: &schedulerv1.Report_StepStarted{StepStarted: &schedulerv1.StepStarted{}}})
	}
	if _, err := w.ack(4); err == nil {
		t.Error("a report that was never sent is acknowledged")
	}
	if _, err := w.ack(2); err != nil {
		t.Error(err)
	}
	if _, err := w.ack(1); err == nil {
		t.Error("a report that is dropped is asked for again")
	}
}

// Whoever reads the last lines finds what is wrong, not how often it was tried.
func TestAFailedDialIsSaidOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	code := Main(ctx, nil, []string{"FORGE_RUNNER_URL=127.0.0.1:1", "FORGE_RUNNER_TOKEN=t", "FORGE_WORKSPACE=" + filepath.Join(t.TempDir(), "w")}, nil, io.Discard, &stderr)
	line := `msg="the scheduler is away, trying again" error="dial tcp 127.0.0.1:1: connect: connection refused"` + "\n"
	if code != exitFailed || strings.Count(stderr.String(), line) != 1 || strings.Count(stderr.String(), "trying again") != 1 {
		t.Errorf("exit %d\n%s", code, stderr.String())
	}
}

func TestErrorsThatDifferInNumbersAreOne(t *testing.T) {
	text, kind := plain(status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp: lookup forge.example.com: no such host"`))
	if text != "dial tcp: lookup forge.example.com: no such host" || kind != text {
		t.Errorf("%q, %q", text, kind)
	}
	_, one := plain(errors.New("read tcp 10.0.0.2:40112->10.0.0.1:9094: connection reset by peer"))
	if _, other := plain(errors.New("read tcp 10.0.0.2:40890->10.0.0.1:9094: connection reset by peer")); one != other {
		t.Errorf("%q, %q", one, other)
	}
}
