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
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// It is kept until its time, through a restart and whatever sweeps, and then it goes.
func TestTheContainerOfAFailedJobIsKeptForItsTime(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		if kept, _ := r.failsKept(id, canKeep("runner-1")); kept != 15*time.Minute {
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
		if stops, _, err := r.service.store.CountStops(t.Context()); err != nil || stops > 0 {
			t.Errorf("%d containers wait to be removed, %v", stops, err)
		}
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
		if kept, _ := r.failsKept(first, canKeep("runner-1")); kept == 0 {
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
			if kept, _ := r.failsKept(id, hello); kept != 0 {
				t.Errorf("%s: the runner is told to keep it for %v", name, kept)
			}
			_, err := r.opens("ada", id)
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, sha := range []string{"k1", "k2", "k3"} { // one more than builds run at once
			number++
			r.config.set(sha, valid(keptFailing()))
			id := r.built(opened(number, sha))
			kept, _ := r.failsKept(id, canKeep("runner-1"))
			if b := r.build(id); (kept > 0) == (sha == "k3") || sha == "k3" && !strings.Contains(b.GetNotKept(), "2 containers are kept already") {
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
		if kept, _ := r.failsKept(stranger, canKeep("runner-1")); kept != 0 {
			t.Errorf("that of a stranger is kept for %v", kept)
		}
		if _, err := r.opens("ada", stranger); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "nobody approved") {
			t.Errorf("%v", err)
		}
	})
	each(t, func(t *testing.T, r *rig) {
		r.config.set("fff", valid(keptFailing()))
		fork := r.send(fromFork("eve", opened(1, "fff"))).GetBuildIds()[0]
		r.send(pressedAt("fff", fork, "approve"))
		if kept, _ := r.failsKept(fork, canKeep("runner-1")); kept == 0 {
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
		_, token := there.failsKept(id, canKeep("runner-1"))
		p, err := here.opens("ada", id, "make", "test")
		if err != nil {
			t.Fatal(err)
		}
		if !p.opened.GetKeptUntilTime().AsTime().Equal(here.clock.Now().Add(15*time.Minute)) || p.opened.GetHasSecrets() {
			t.Errorf("%v", p.opened)
		}
		shell, err := there.waits(token, "runner-1")
		if err != nil || shell != p.opened.GetShellId() {
			t.Fatalf("%q, %v", shell, err)
		}
		stream, opening, err := there.begins(token, "runner-1", shell)
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
		here.clock.Advance(3 * time.Minute)
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
		_, token := r.failsKept(id, canKeep("runner-1"))
		for login, want := range map[string]string{"ada": "", "root": "hunter2hunter2"} {
			p, err := r.opens(login, id)
			if err != nil {
				t.Fatal(err)
			}
			shell, err := r.waits(token, "runner-1")
			if err != nil {
				t.Fatal(err)
			}
			stream, opening, err := r.begins(token, "runner-1", shell)
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
		if kept, _ := r.failsKept(deploy, canKeep("runner-1")); kept == 0 {
			t.Fatal("the deploy is not kept")
		}
		if _, err := r.opens("ada", deploy); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a writer in a deploy with secrets: %v", err)
		}
		if _, err := r.opens("root", deploy); err != nil {
			t.Errorf("an admin in a deploy with secrets: %v", err)
		}
	})
}

// A runner whose attempt is over changes nothing by what it says, and is given nothing of
// another's.
func TestAKeptContainerIsBelievedNothing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		tokens, ids := map[string]string{}, map[string]string{}
		for n, sha := range []string{"aaa", "bbb"} {
			r.config.set(sha, valid(keptFailing()))
			ids[sha] = r.built(opened(int32(n+1), sha))
			_, tokens[sha] = r.failsKept(ids[sha], canKeep("runner-"+sha))
		}
		// It attaches again, as one does whose last Ack was lost, and reports that it passed.
		u := r.stream(tokens["aaa"], canKeep("runner-aaa"))
		if welcome := u.recv().GetWelcome(); welcome.GetStoredSequence() != 3 || welcome.GetKeptFor().AsDuration() != 15*time.Minute {
			t.Errorf("%v", welcome)
		}
		_ = u.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: exited(4, 1, 0)}})
		_ = u.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: over(5, schedulerv1.Ended_CAUSE_DONE)}})
		if err := u.refused(); err != nil {
			t.Errorf("%v", err)
		}
		if _, err := r.service.attempts.StoreReports(t.Context(), ids["aaa"], 1, "runner-aaa", []*schedulerv1.Report{over(4, schedulerv1.Ended_CAUSE_DONE)}); !fault.Is(err, fault.Conflict) {
			t.Errorf("a report: %v", err)
		}
		if err := r.stream(tokens["aaa"], canKeep("another")).refused(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("another runner attaches: %v", err)
		}
		if _, err := r.waits(tokens["aaa"], "another"); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("another runner keeps: %v", err)
		}
		p, err := r.opens("ada", ids["aaa"])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.begins(tokens["bbb"], "runner-bbb", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the runner of another attempt: %v", err)
		}
		if _, _, err := r.begins(tokens["bbb"], "runner-aaa", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("with the name of its runner: %v", err)
		}
		stream, _, err := r.begins(tokens["aaa"], "runner-aaa", p.opened.GetShellId())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.begins(tokens["aaa"], "runner-aaa", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("a second time: %v", err)
		}
		if err := p.types("root", 1, "rm -rf /", ids["aaa"]); status.Code(err) != codes.NotFound {
			t.Errorf("somebody else types: %v", err)
		}
		if err := p.types("ada", 1, "ls", ids["bbb"]); status.Code(err) != codes.NotFound {
			t.Errorf("by another build: %v", err)
		}
		if err := stream.Send(tookInputs(99)); err != nil {
			t.Fatal(err)
		}
		if _, closed := p.sees(1 << 20); closed.GetExitCode() != -1 {
			t.Errorf("more was taken than sent: %v", closed)
		}
		for _, id := range ids {
			if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_FAILED || b.GetAttempt() != 1 {
				t.Errorf("%v", b)
			}
		}
	})
}

// A container that prints without end fills nothing, and who comes back reads on.
func TestAFloodWaitsForWhoReads(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		_, token := r.failsKept(id, canKeep("runner-1"))
		p, err := r.opens("ada", id)
		if err != nil {
			t.Fatal(err)
		}
		stream, _, err := r.begins(token, "runner-1", p.opened.GetShellId())
		if err != nil {
			t.Fatal(err)
		}
		const parts, size = 400, 32 << 10 // 12.5 MiB
		flood := make(chan error, 1)
		go func() {
			for range parts {
				if err := stream.Send(printsInShell(strings.Repeat("x", size))); err != nil {
					flood <- err
					return
				}
			}
			flood <- stream.Send(exitsShell(0))
		}()
		most := int64(0)
		seen := 0
		for seen < parts*size {
			text, closed := p.sees(size)
			if closed != nil {
				t.Fatalf("closed: %v", closed)
			}
			seen += len(text)
			var stored int64
			if err := r.service.deps.DB.Read().QueryRowContext(t.Context(), `SELECT COALESCE(sum(size), 0) FROM shell_frames`).Scan(&stored); err != nil {
				t.Fatal(err)
			}
			most = max(most, stored)
		}
		if _, closed := p.sees(1); closed.GetExitCode() != 0 || seen != parts*size {
			t.Errorf("%d bytes, %v", seen, closed)
		}
		if err := <-flood; err != nil {
			t.Error(err)
		}
		if most == 0 || most > 512<<10 {
			t.Errorf("%d bytes lay in the database", most)
		}
	})
}

func TestAShellIsClosedWithWhoeverIsGone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		_, token := r.failsKept(id, canKeep("runner-1"))
		begun := func(login string) (*person, schedulerv1.RunnerService_ShellClient) {
			p, err := r.opens(login, id)
			if err != nil {
				t.Fatal(err)
			}
			stream, _, err := r.begins(token, "runner-1", p.opened.GetShellId())
			if err != nil {
				t.Fatal(err)
			}
			return p, stream
		}
		// The person.
		p, stream := begun("ada")
		p.leave()
		if _, err := stream.Recv(); err == nil {
			t.Error("the runner goes on")
		}
		// The runner.
		p, stream = begun("ada")
		ended := stream.CloseSend()
		if _, closed := p.sees(1); ended != nil || closed.GetExitCode() != -1 || closed.GetProblem() != "the connection to its container broke" {
			t.Errorf("%v, %v", closed, ended)
		}
		// More than may be.
		var all []*person
		for range 4 {
			next, err := r.opens("ada", id)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, next)
		}
		if _, err := r.opens("ada", id); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a fifth: %v", err)
		}
		// The container, by somebody's wish.
		shells := schedulerv1.NewShellServiceClient(r.gateway)
		if _, err := shells.RemoveContainer(r.as("ada"), &schedulerv1.RemoveContainerRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(store.AttemptName(id, 1)) {
				return errors.New("it is still there")
			}
			return nil
		})
		if _, err := r.opens("ada", id); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "it was until") {
			t.Errorf("%v", err)
		}
		if _, err := r.waits(token, "runner-1"); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("its runner: %v", err)
		}
		for _, one := range all {
			one.leave()
		}
		kittest.Eventually(t, patience, func() error {
			if lines := shellEntries(t, r); len(lines) != 13 {
				return fmt.Errorf("the audit log has\n%s", strings.Join(lines, "\n"))
			}
			return nil
		})
	})
}

// A scheduler that is killed leaves shells open, and its successor closes them.
func TestShellsOfADeadSchedulerAreClosed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		_, token := r.failsKept(id, canKeep("runner-1"))
		if _, err := r.opens("ada", id); err != nil {
			t.Fatal(err)
		}
		left := &schedulerv1.OpenShellRequest{BuildId: id}
		err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { // as who is killed leaves it
			return tx.Exec(ctx, `INSERT INTO shells (id, build_id, attempt, person, request, opened, secrets, create_time, alive_time, begun, close_time, exit_code, problem)
				SELECT 'left', build_id, attempt, person, request, opened, secrets, create_time, 0, secrets, 0, -1, '' FROM shells WHERE build_id = $1`, left.GetBuildId())
		})
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		r.start()
		kittest.Eventually(t, patience, func() error {
			for _, line := range shellEntries(t, r) {
				if strings.Contains(line, "who has opened it is not heard of any more") {
					return nil
				}
			}
			return errors.New("it is open")
		})
		if again, err := r.opens("ada", id); err != nil { // the container is there all the same
			t.Error(err)
		} else if _, _, err := r.begins(token, "runner-1", again.opened.GetShellId()); err != nil {
			t.Error(err)
		}
	})
}
