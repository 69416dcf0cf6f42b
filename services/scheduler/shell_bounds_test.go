package scheduler

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// keptLong has a build whose container is kept for nearly an hour.
func keptLong(r *rig) (id, token string) {
	r.t.Helper()
	config := keptFailing()
	config.Keep = durationpb.New(55 * time.Minute)
	r.config.set("aaa", valid(config))
	id = r.built(opened(1, "aaa"))
	_, token = failsKept(r, id, canKeep("runner-1"))
	return id, token
}

// does changes what no call changes.
func does(r *rig, statement string, args ...any) {
	r.t.Helper()
	err := r.service.deps.DB.Write(r.t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// passes lets time pass in which who has opened shells is there.
func passes(r *rig, d time.Duration) {
	r.t.Helper()
	does(r, `UPDATE shells SET alive_time = $1`, sqldb.Micros(r.clock.Now().Add(d)))
	r.clock.Advance(d)
}

func TestWhatIsTooLargeForAShellIsRefused(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id, token := keptLong(r)
		for name, command := range map[string][]string{
			"words": slices.Repeat([]string{"x"}, 101), "bytes": {"echo", strings.Repeat("x", 64<<10-3)},
		} {
			if _, err := opensShell(r, "ada", id, command...); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "at most 100 words, 64 KiB in all") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if lines := shellEntries(t, r); len(lines) > 0 {
			t.Errorf("the audit log has %q", lines)
		}
		longest := append([]string{strings.Repeat("x", 64<<10-99)}, slices.Repeat([]string{"y"}, 99)...)
		p, err := opensShell(r, "ada", id, longest...)
		if err != nil {
			t.Fatal(err)
		}
		stream, opening, err := beginsShell(r, token, "runner-1", p.opened.GetShellId())
		if err != nil || !slices.Equal(opening.GetCommand(), longest) {
			t.Fatalf("%d words, %v", len(opening.GetCommand()), err)
		}
		whole := strings.Repeat("z", 32<<10)
		for number, text := range map[int64]string{1: whole + "z", 0: "z", -1: "z"} {
			if err := p.types("ada", number, text, id); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "at most 32 KiB, numbered from 1") {
				t.Errorf("%d bytes as number %d: %v", len(text), number, err)
			}
		}
		if err := p.types("ada", 1, whole, id); err != nil {
			t.Error(err)
		}
		if message, err := stream.Recv(); err != nil || string(message.GetInput().GetData()) != whole {
			t.Errorf("%d bytes arrive, %v", len(message.GetInput().GetData()), err)
		}
		if err := stream.Send(printsInShell(whole)); err != nil {
			t.Fatal(err)
		}
		if text, closed := p.sees(len(whole)); text != whole {
			t.Errorf("%d bytes are seen, %v", len(text), closed)
		}
		if err := stream.Send(printsInShell(whole + "z")); err != nil {
			t.Fatal(err)
		}
		if text, closed := p.sees(1); closed.GetExitCode() != -1 {
			t.Errorf("more than a runner may print at once: %d bytes, %v", len(text), closed)
		}
	})
}

// It says that it goes on, as long as it does, and ends where nobody needs it.
func TestAShellInWhichNothingHappensIsClosed(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id, token := keptLong(r)
		p, err := opensShell(r, "ada", id)
		if err != nil {
			t.Fatal(err)
		}
		stream, _, err := beginsShell(r, token, "runner-1", p.opened.GetShellId())
		if err != nil {
			t.Fatal(err)
		}
		if message, err := p.stream.Recv(); err != nil || message.GetOutput() == nil || len(message.GetOutput().GetData()) > 0 {
			t.Fatalf("it does not say that it goes on: %v, %v", message, err)
		}
		for n := range int64(2) { // each time it was nearly idle
			passes(r, 14*time.Minute)
			if err := p.types("ada", n+1, "w\n", id); err != nil {
				t.Fatal(err)
			}
			if message, err := stream.Recv(); err != nil || string(message.GetInput().GetData()) != "w\n" {
				t.Fatalf("%v, %v", message, err)
			}
		}
		passes(r, 15*time.Minute+time.Second)
		if _, closed := p.sees(1); closed.GetExitCode() != -1 || closed.GetProblem() != "nothing was typed or printed for 15m0s" {
			t.Errorf("%v", closed)
		}
		if _, err := stream.Recv(); err == nil {
			t.Error("its runner goes on")
		}
		if err := p.types("ada", 3, "w\n", id); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "is closed") {
			t.Errorf("typed after its end: %v", err)
		}
		want := "ada close shell by api personal token laptop 192.0.2.7 forge/test: after 43m1s: nothing was typed or printed for 15m0s"
		if lines := shellEntries(t, r); len(lines) != 2 || lines[1] != want {
			t.Errorf("the audit log has\n%s", strings.Join(lines, "\n"))
		}
		if again, err := opensShell(r, "ada", id); err != nil {
			t.Errorf("its container: %v", err)
		} else if _, _, err := beginsShell(r, token, "runner-1", again.opened.GetShellId()); err != nil {
			t.Error(err)
		}
	})
}

// What the audit log cannot tell of is not done.
func TestNoShellIsOpenedThatIsNotAudited(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id, token := keptLong(r)
		refuses, takes := `CREATE TRIGGER refuses BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`, `DROP TRIGGER refuses`
		if r.service.deps.DB.Dialect == sqldb.Postgres {
			refuses, takes = `ALTER TABLE audit_entries ADD CONSTRAINT refuses CHECK (false) NOT VALID`, `ALTER TABLE audit_entries DROP CONSTRAINT refuses`
		}
		does(r, refuses)
		if p, err := opensShell(r, "ada", id, "rm", "-rf", "/"); err == nil {
			t.Errorf("it is open: %v", p.opened)
		}
		var shells, frames int
		for table, count := range map[string]*int{"shells": &shells, "shell_frames": &frames} {
			if err := r.service.deps.DB.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(count); err != nil {
				t.Fatal(err)
			}
		}
		if shells+frames > 0 {
			t.Errorf("there are %d shells and %d frames", shells, frames)
		}
		does(r, takes)
		p, err := opensShell(r, "ada", id, "true")
		if err != nil {
			t.Fatal(err)
		}
		if shell, err := waitsForShell(r, token, "runner-1"); err != nil || shell != p.opened.GetShellId() {
			t.Errorf("the runner is asked for %q, %v", shell, err)
		}
		if lines := shellEntries(t, r); len(lines) != 1 {
			t.Errorf("the audit log has\n%s", strings.Join(lines, "\n"))
		}
	})
}

// The clock of a container's machine may be ahead a little: what it says at the end of its
// time is that its time is over.
func TestAShellThatEndsWithItsContainerSaysSo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, left := range []time.Duration{time.Second, 0} {
			t.Run(fmt.Sprint(left), func(t *testing.T) {
				sha := "sha" + left.String()
				r.config.set(sha, valid(keptFailing()))
				id := r.built(opened(int32(left/time.Second)+1, sha))
				_, token := failsKept(r, id, canKeep("runner-"+sha))
				p, err := opensShell(r, "ada", id)
				if err != nil {
					t.Fatal(err)
				}
				stream, _, err := beginsShell(r, token, "runner-"+sha, p.opened.GetShellId())
				if err != nil {
					t.Fatal(err)
				}
				passes(r, 15*time.Minute-left)
				if err := stream.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if _, closed := p.sees(1); closed.GetExitCode() != -1 || closed.GetProblem() != "its container is not kept any more" {
					t.Errorf("%v", closed)
				}
			})
		}
	})
}
