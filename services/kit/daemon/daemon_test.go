package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/forge-ci/forge/services/kit/daemon"
)

// asDaemon makes the test binary the process that a test sends signals to.
const asDaemon = "DAEMON_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		os.Exit(stubborn())
	}
	// The first Notify starts the runtime's signal loop, which may not belong to
	// a synctest bubble.
	warm := make(chan os.Signal, 1)
	signal.Notify(warm, syscall.SIGTERM)
	signal.Stop(warm)
	goleak.VerifyTestMain(m)
}

// journal records what the parts of a test do.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) is(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, want) {
		t.Errorf("got  %q\nwant %q", j.lines, want)
	}
}

// part is ready after a while and runs until it is stopped.
func (j *journal) part(name string) daemon.Part {
	return daemon.Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		j.add("start " + name)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			j.add("never ready " + name)
			return ctx.Err()
		}
		j.add("ready " + name)
		ready()
		<-ctx.Done()
		j.add("stop " + name)
		return ctx.Err()
	}}
}

// returns is a part that is ready at once and returns err after a while.
func returns(name string, err error) daemon.Part {
	return daemon.Background(name, func(context.Context) error {
		<-time.After(time.Second)
		return err
	})
}

func run(ctx context.Context, parts ...daemon.Part) error {
	return daemon.Run(ctx, slog.New(slog.DiscardHandler), 10*time.Second, parts...)
}

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := run(ctx, j.part("store"), j.part("scheduler"), j.part("gateway")); err != nil {
			t.Error(err)
		}
		j.is(t, "start store", "ready store", "start scheduler", "ready scheduler", "start gateway", "ready gateway",
			"stop gateway", "stop scheduler", "stop store")
	})
}

func TestStopWhileStartingStopsOnlyWhatWasStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := run(ctx, j.part("store"), j.part("scheduler"), j.part("gateway")); err != nil {
			t.Error(err)
		}
		j.is(t, "start store", "ready store", "start scheduler", "never ready scheduler", "stop store")
	})
}

func TestErrorOfAPartStopsTheOthersAndNamesIt(t *testing.T) {
	broken := errors.New("database is gone")
	synctest.Test(t, func(t *testing.T) {
		var j journal
		err := run(t.Context(), j.part("store"), returns("relay", broken), j.part("gateway"))
		if !errors.Is(err, broken) || err.Error() != "relay: database is gone" {
			t.Errorf("got %v", err)
		}
		if last := j.lines[len(j.lines)-1]; last != "stop store" {
			t.Errorf("the store was not stopped last: %q", j.lines)
		}
	})
}

func TestPartThatFailsBeforeItIsReadyStartsNoOther(t *testing.T) {
	var j journal
	broken := daemon.Part{Name: "store", Run: func(context.Context, func()) error { return errors.New("newer than this binary") }}
	err := run(t.Context(), broken, j.part("gateway"))
	if err == nil || err.Error() != "store: newer than this binary" {
		t.Errorf("got %v", err)
	}
	j.is(t)
}

func TestFinishedJobLeavesTheOthersRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		migrate := daemon.Part{Name: "migrate", Run: func(context.Context, func()) error { return nil }} // never says ready
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := run(ctx, migrate, j.part("store")); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("stopped after %s", took)
		}
		j.is(t, "start store", "ready store", "stop store")
	})
}

func TestPartThatEndsStopsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		story := returns("story", nil)
		story.Ends = true
		if err := run(t.Context(), j.part("store"), story); err != nil {
			t.Error(err)
		}
		j.is(t, "start store", "ready store", "stop store")
	})
}

func TestRunEndsWithItsLastJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := run(t.Context(), returns("one", nil), returns("two", nil)); err != nil {
			t.Error(err)
		}
	})
}

func TestPartThatDoesNotStopInTimeIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		defer close(release)
		stuck := daemon.Background("relay", func(context.Context) error {
			<-release
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := run(ctx, j.part("store"), stuck)
		if err == nil || err.Error() != "relay: did not stop within 10s" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Minute+10*time.Second {
			t.Errorf("took %s", took)
		}
		j.is(t, "start store", "ready store", "stop store")
	})
}

func TestErrorWhileStoppingIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := daemon.Background("store", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("checkpoint: disk full")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := run(ctx, store); err == nil || err.Error() != "store: checkpoint: disk full" {
			t.Errorf("got %v", err)
		}
	})
}

// stubborn is a daemon with a part that takes long to stop. It says on standard
// output when it is up and when it was asked to stop.
func stubborn() int {
	part := daemon.Background("gateway", func(ctx context.Context) error {
		os.Stdout.WriteString("up\n")
		<-ctx.Done()
		os.Stdout.WriteString("asked\n")
		if os.Getenv(asDaemon) == "stuck" {
			select {}
		}
		return nil
	})
	if err := daemon.Run(context.Background(), slog.New(slog.DiscardHandler), time.Minute, part); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("stopped\n")
	return 0
}

// converse starts the test binary as a daemon, answers each line it prints as
// told, and returns all it printed.
func converse(t *testing.T, mode string, answers map[string]os.Signal) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asDaemon+"="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if sig, ok := answers[lines.Text()]; ok {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	return said.String(), cmd.Wait()
}

func TestSignalStopsInOrder(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		said, err := converse(t, "polite", map[string]os.Signal{"up": sig})
		if err != nil || said != "up\nasked\nstopped\n" {
			t.Errorf("%s: %q, %v", sig, said, err)
		}
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	said, err := converse(t, "stuck", map[string]os.Signal{"up": syscall.SIGTERM, "asked": syscall.SIGINT})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || said != "up\nasked\ngateway: cut off while stopping (interrupt)\n" {
		t.Errorf("%q, %v", said, err)
	}
}
