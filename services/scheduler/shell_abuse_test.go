package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// A runner whose attempt is over changes nothing by what it says, and is given nothing of
// another's.
func TestAKeptContainerIsBelievedNothing(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		tokens, ids := map[string]string{}, map[string]string{}
		for n, sha := range []string{"aaa", "bbb"} {
			r.config.set(sha, valid(keptFailing()))
			ids[sha] = r.built(opened(int32(n+1), sha))
			_, tokens[sha] = failsKept(r, ids[sha], canKeep("runner-"+sha))
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
		if _, err := waitsForShell(r, tokens["aaa"], "another"); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("another runner keeps: %v", err)
		}
		p, err := opensShell(r, "ada", ids["aaa"])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := beginsShell(r, tokens["bbb"], "runner-bbb", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the runner of another attempt: %v", err)
		}
		if _, _, err := beginsShell(r, tokens["bbb"], "runner-aaa", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("with the name of its runner: %v", err)
		}
		stream, _, err := beginsShell(r, tokens["aaa"], "runner-aaa", p.opened.GetShellId())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := beginsShell(r, tokens["aaa"], "runner-aaa", p.opened.GetShellId()); status.Code(err) != codes.FailedPrecondition {
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
		_, token := failsKept(r, id, canKeep("runner-1"))
		p, err := opensShell(r, "ada", id)
		if err != nil {
			t.Fatal(err)
		}
		stream, _, err := beginsShell(r, token, "runner-1", p.opened.GetShellId())
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
		_, token := failsKept(r, id, canKeep("runner-1"))
		begun := func(login string) (*person, schedulerv1.RunnerService_ShellClient) {
			p, err := opensShell(r, login, id)
			if err != nil {
				t.Fatal(err)
			}
			stream, _, err := beginsShell(r, token, "runner-1", p.opened.GetShellId())
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
			next, err := opensShell(r, "ada", id)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, next)
		}
		if _, err := opensShell(r, "ada", id); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a fifth: %v", err)
		}
		// The container, by somebody's wish.
		shells := schedulerv1.NewShellServiceClient(r.gateway)
		if _, err := shells.RemoveContainer(asPerson(r, "ada"), &schedulerv1.RemoveContainerRequest{BuildId: id}); err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, patience, func() error {
			if r.engine.running(store.AttemptName(id, 1)) {
				return errors.New("it is still there")
			}
			return nil
		})
		if _, err := opensShell(r, "ada", id); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "it was until") {
			t.Errorf("%v", err)
		}
		if _, err := waitsForShell(r, token, "runner-1"); status.Code(err) != codes.FailedPrecondition {
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
		_, token := failsKept(r, id, canKeep("runner-1"))
		if _, err := opensShell(r, "ada", id); err != nil {
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
		if again, err := opensShell(r, "ada", id); err != nil { // the container is there all the same
			t.Error(err)
		} else if _, _, err := beginsShell(r, token, "runner-1", again.opened.GetShellId()); err != nil {
			t.Error(err)
		}
	})
}

// Where a scheduler stops, the runner's side of a shell may close it first: who has opened
// it is told the same as else, to open another.
func TestAShellOfASchedulerThatStopsIsToBeOpenedAnew(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", valid(keptFailing()))
		id := r.built(opened(1, "aaa"))
		failsKept(r, id, canKeep("runner-1"))
		p, err := opensShell(r, "ada", id)
		if err != nil {
			t.Fatal(err)
		}
		err = r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { // as the runner's side does
			return tx.Exec(ctx, `UPDATE shells SET close_time = 1, exit_code = -1, problem = 'the scheduler stopped' WHERE id = $1`, p.opened.GetShellId())
		})
		for err == nil {
			var message *schedulerv1.OpenShellResponse
			if message, err = p.stream.Recv(); message.GetClosed() != nil {
				t.Fatalf("it was closed: %v", message.GetClosed())
			}
		}
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "open a new shell") {
			t.Error(err)
		}
	})
}
