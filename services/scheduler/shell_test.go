package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// lateEngine answers a Start when somebody says so, though the container runs long before.
type lateEngine struct {
	*memoryEngine

	answer chan struct{}
}

func (e *lateEngine) Start(ctx context.Context, spec engine.Spec) error {
	err := e.memoryEngine.Start(ctx, spec)
	select {
	case <-e.answer:
	case <-ctx.Done():
	}
	return err
}

// The commands may have failed before the engine says that the container runs.
func TestTheContainerOfAJobThatIsFasterThanTheEngineIsKept(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		late := &lateEngine{r.engine, make(chan struct{})}
		r.deps.Engine = late
		r.start()
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		if kept, _ := failsKept(r, id, canKeep("runner-1")); kept != 15*time.Minute {
			t.Errorf("the runner is told to keep it for %v", kept)
		}
		close(late.answer)
		r.stop() // which waits for what became of the start
		r.start()
		r.clock.Advance(14 * time.Minute)
		r.sweep()
		r.wake()
		other := r.built(opened(2, "bbb"))
		r.pass(other)
		kittest.Eventually(t, patience, func() error { // as what came after is
			if r.engine.running(store.AttemptName(other, 1)) {
				return errors.New("what has passed is not removed")
			}
			return nil
		})
		if !r.engine.running(store.AttemptName(id, 1)) {
			t.Error("it went before its time")
		}
	})
}

// It is kept until its time, through a restart and whatever sweeps, and then it goes.
func TestTheContainerOfAFailedJobIsKeptForItsTime(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		if kept, _ := failsKept(r, id, canKeep("runner-1")); kept != 15*time.Minute {
			t.Errorf("the runner is told to keep it for %v", kept)
		}
		r.shown("aaa", "forge/test", schedulerv1.Build_STATE_FAILED)
		if until := r.build(id).GetKeptUntilTime().AsTime(); !until.Equal(r.clock.Now().Add(15 * time.Minute)) {
			t.Errorf("kept until %v", until)
		}
		next := r.built(opened(2, "bbb"))
		other := r.built(opened(3, "ccc")) // as many as there are places
		r.pass(next)
		r.pass(other)
		r.clock.Advance(14 * time.Minute)
		r.stop()
		r.start()
		r.sweep()
		r.wake()
		if !r.engine.running(store.AttemptName(id, 1)) {
			t.Fatal("it went before its time")
		}
		kittest.Eventually(t, patience, func() error { // those of the other two may be under way
			stops, _, err := r.service.store.CountStops(t.Context())
			if err == nil && stops > 0 {
				err = fmt.Errorf("%d containers wait to be removed", stops)
			}
			return err
		})
		r.clock.Advance(time.Minute)
		kittest.Eventually(t, patience, func() error {
			r.wake()
			if r.engine.running(store.AttemptName(id, 1)) {
				return errors.New("it is still there")
			}
			return nil
		})
		if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_FAILED {
			t.Errorf("%v", b)
		}
	})
}

// Nobody waits for a kept container: neither who deploys to its environment next.
func TestAKeptContainerHoldsNoEnvironment(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, sha := range []string{"m1", "m2"} {
			r.config.set(sha, valid(keptFailing()))
		}
		first := r.built(mergedInto(1, "main", "m1"))
		second := r.built(mergedInto(2, "main", "m2"))
		if kept, _ := failsKept(r, first, canKeep("runner-1")); kept == 0 {
			t.Fatal("it is not kept")
		}
		r.pass(second)
		if !r.engine.running(store.AttemptName(first, 1)) {
			t.Error("it is gone")
		}
	})
}

func TestWhatIsNotKeptSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		number := int32(0)
		for name, c := range map[string]struct {
			config func(*configv1.BuildConfig)
			event  func(*eventv1.Event) *eventv1.Event
			hello  func(*schedulerv1.Hello)
			says   string
		}{
			"nobody asks":      {config: func(c *configv1.BuildConfig) { c.Keep = nil }, says: ".forge.yml does not ask for that"},
			"it is turned off": {config: func(c *configv1.BuildConfig) { c.Keep.Seconds = 0 }, says: ".forge.yml does not ask for that"},
			"an old forgexec":  {hello: func(h *schedulerv1.Hello) { h.KeepsContainer = false }, says: "forgexec is too old"},
			"ports":            {config: func(c *configv1.BuildConfig) { c.Ports = []*configv1.Port{{Container: 80, Host: 8080}} }, says: "has ports of the host"},
		} {
			number++
			sha, config, hello := fmt.Sprintf("sha%d", number), keptFailing(), canKeep("runner-1")
			if c.config != nil {
				c.config(config)
			}
			if c.hello != nil {
				c.hello(hello)
			}
			r.config.set(sha, valid(config))
			id := r.built(opened(number, sha))
			if kept, _ := failsKept(r, id, hello); kept != 0 {
				t.Errorf("%s: the runner is told to keep it for %v", name, kept)
			}
			_, err := opensShell(r, "ada", id)
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		r.config.set("p1", valid(keptFailing()))
		r.config.set("p2", valid(keptFailing()))
		first := r.built(opened(99, "p1"))
		if kept, _ := failsKept(r, first, canKeep("runner-1")); kept == 0 {
			t.Errorf("the first of a pull request is not kept: %s", r.build(first).GetNotKept())
		}
		second := r.built(opened(99, "p2"))
		if kept, _ := failsKept(r, second, canKeep("runner-1")); kept > 0 || !strings.Contains(r.build(second).GetNotKept(), "as of one may be: 1") {
			t.Errorf("the second is kept for %v: %s", kept, r.build(second).GetNotKept())
		}
		r.clock.Advance(15 * time.Minute)
		for _, sha := range []string{"k1", "k2", "k3"} { // one more than builds run at once
			number++
			r.config.set(sha, valid(keptFailing()))
			id := r.built(opened(number, sha))
			kept, _ := failsKept(r, id, canKeep("runner-1"))
			if b := r.build(id); (kept > 0) == (sha == "k3") || sha == "k3" && !strings.Contains(b.GetNotKept(), "as builds run at once: 2") {
				t.Errorf("%s is kept for %v: %s", sha, kept, b.GetNotKept())
			}
		}
	})
}

func TestOnlyAnApprovedForksJobIsKept(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Policy.Forks = trigger.ForkRun
		r.start()
		r.config.set("fff", valid(keptFailing()))
		stranger := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		if kept, _ := failsKept(r, stranger, canKeep("runner-1")); kept != 0 {
			t.Errorf("that of a stranger is kept for %v", kept)
		}
		if _, err := opensShell(r, "ada", stranger); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "nobody approved") {
			t.Errorf("%v", err)
		}
	})
	each(t, func(t *testing.T, r *rig) {
		r.config.set("fff", valid(keptFailing()))
		fork := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		r.send(pressedAt("fff", fork, "approve"))
		if kept, _ := failsKept(r, fork, canKeep("runner-1")); kept == 0 {
			t.Errorf("that which ada approved is not kept: %s", r.build(fork).GetNotKept())
		}
	})
}

// Whoever has the runner, and whoever the person: what is typed and printed reaches the
// other, and the audit log tells of both ends.
func TestAShellReachesItsContainer(t *testing.T) {
	eachTwice(t, func(t *testing.T, here, there *rig) {
		here.config.set("aaa", valid(keptFailing()))
		id := here.built(opened(1, "aaa"))
		_, token := failsKept(there, id, canKeep("runner-1"))
		p, err := opensShell(here, "ada", id, "make", "test")
		if err != nil {
			t.Fatal(err)
		}
		if !p.opened.GetKeptUntilTime().AsTime().Equal(here.clock.Now().Add(15*time.Minute)) || p.opened.GetHasSecrets() {
			t.Errorf("%v", p.opened)
		}
		shell, err := waitsForShell(there, token, "runner-1")
		if err != nil || shell != p.opened.GetShellId() {
			t.Fatalf("%q, %v", shell, err)
		}
		stream, opening, err := beginsShell(there, token, "runner-1", shell)
		if err != nil || !slices.Equal(opening.GetCommand(), []string{"make", "test"}) {
			t.Fatalf("%v, %v", opening, err)
		}
		const typed = 20 // more than are sent ahead
		for n := range int64(typed) {
			for range 2 { // what is sent twice is typed once
				if err := p.types("ada", n+1, fmt.Sprintf("line %d\n", n), id); err != nil {
					t.Fatal(err)
				}
			}
		}
		for n := range int64(typed) {
			message, err := stream.Recv()
			if err != nil || string(message.GetInput().GetData()) != fmt.Sprintf("line %d\n", n) {
				t.Fatalf("input %d: %v, %v", n, message, err)
			}
			if err := stream.Send(tookInputs(n + 1)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 50 {
			if err := stream.Send(printsInShell(fmt.Sprintf("out %d\n", n))); err != nil {
				t.Fatal(err)
			}
		}
		passes(here, 3*time.Minute)
		if err := stream.Send(exitsShell(7)); err != nil {
			t.Fatal(err)
		}
		text, closed := p.sees(1 << 20)
		if strings.Count(text, "\n") != 50 || !strings.HasSuffix(text, "out 48\nout 49\n") || closed.GetExitCode() != 7 || closed.GetProblem() != "" {
			t.Errorf("%q, %v", text, closed)
		}
		if err := p.types("ada", typed+1, "more", id); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("typed after the end: %v", err)
		}
		want := []string{
			"ada open shell by api personal token laptop 192.0.2.7 forge/test: a command",
			"ada close shell by api personal token laptop 192.0.2.7 forge/test: after 3m0s, exit code 7",
		}
		if got := shellEntries(t, here); !slices.Equal(got, want) {
			t.Errorf("the audit log has\n%s", strings.Join(got, "\n"))
		}
		var stored strings.Builder
		if err := (publisher{here}).dump(&stored, "shell_frames"); err != nil || strings.Contains(stored.String(), "out ") || strings.Contains(stored.String(), "line ") {
			t.Errorf("what was typed or printed lies in the database: %v", err)
		}
	})
}

func TestSecretsAreForWhoMaySetThem(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.needing("TOKEN")
		r.setSecret("", "TOKEN", "hunter2hunter2")
		config := keptFailing()
		config.Secrets = []string{"TOKEN"}
		r.config.set("aaa", valid(config))
		r.config.set("m1", valid(config))
		id := r.built(opened(1, "aaa"))
		_, token := failsKept(r, id, canKeep("runner-1"))
		for login, want := range map[string]string{"ada": "", "root": "hunter2hunter2"} {
			p, err := opensShell(r, login, id)
			if err != nil {
				t.Fatal(err)
			}
			shell, err := waitsForShell(r, token, "runner-1")
			if err != nil {
				t.Fatal(err)
			}
			stream, opening, err := beginsShell(r, token, "runner-1", shell)
			if err != nil || opening.GetSecrets()["TOKEN"] != want || p.opened.GetHasSecrets() != (want != "") {
				t.Errorf("%s is given %v, %v", login, opening.GetSecrets(), err)
			}
			if err := stream.Send(exitsShell(0)); err != nil {
				t.Fatal(err)
			}
			p.sees(1 << 20)
		}
		// A deploy's commands can have left theirs in files.
		deploy := r.built(mergedInto(2, "main", "m1"))
		if kept, _ := failsKept(r, deploy, canKeep("runner-1")); kept == 0 {
			t.Fatal("the deploy is not kept")
		}
		if _, err := opensShell(r, "ada", deploy); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a writer in a deploy with secrets: %v", err)
		}
		if _, err := opensShell(r, "root", deploy); err != nil {
			t.Errorf("an admin in a deploy with secrets: %v", err)
		}
	})
}
