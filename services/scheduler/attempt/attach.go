package attempt

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/forge-ci/forge/services/kit/terminal"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// maxSaid is how much of forgexec's last words stands in a message, in bytes.
const maxSaid = 300

// tailOf is what forgexec wrote last of an attempt in which it should have said hello
// by now; "" of any other, and where nobody knows.
func (s sweep) tailOf(ctx context.Context, buildID string) (string, error) {
	b, err := store.ReadBuild(ctx, s.store.DB.Read(), buildID, "")
	if err != nil {
		return "", err
	}
	a, err := store.ReadAttempt(ctx, s.store.DB.Read(), buildID, b.GetAttempt(), "")
	if err != nil || a.Ended || a.RunnerID != "" || a.Deadline.IsZero() {
		return "", err
	}
	call, cancel := context.WithTimeout(ctx, engine.TailWithin)
	defer cancel()
	text, err := s.engine.Tail(call, a.Name())
	if err != nil && ctx.Err() == nil { // the message does without
		s.metrics.atFault(ctx, engineAtFault, "tail")
		s.log.WarnContext(ctx, "no last words of a container", "attempt", a.Name(), "error", err)
	}
	return text, ctx.Err()
}

// neverAttached says that forgexec did not say hello, and what it says itself.
func (s sweep) neverAttached(a *store.Attempt, tail string) string {
	says := lastError(tail)
	if says == "" {
		return fmt.Sprintf("the container started, but forgexec in it did not reach Forge within %v: check FORGE_RUNNER_URL", AttachWithin)
	}
	where := ""
	if a.Machine != "" {
		where = " on " + a.Machine
	}
	return fmt.Sprintf("the container runs%s, but forgexec in it did not reach %s within %v; it says: %s", where, s.Runners.URL, AttachWithin, says)
}

// lastError is the error in forgexec's last line that has one, else its last line.
// The image is anybody's: what is not forgexec's is shown as text all the same.
func lastError(tail string) string {
	last := ""
	for line := range strings.Lines(tail) {
		line = strings.TrimSpace(line)
		if _, quoted, found := strings.Cut(line, " error="); found {
			if text, err := strconv.QuotedPrefix(quoted); err == nil {
				quoted, _ = strconv.Unquote(text)
			}
			line = quoted
		}
		if line != "" {
			last = line
		}
	}
	last = strings.Join(strings.Fields(terminal.Text([]byte(last))), " ")
	if len(last) > maxSaid {
		last = strings.ToValidUTF8(last[:maxSaid], "") + "…"
	}
	return last
}
