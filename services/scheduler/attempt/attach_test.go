package attempt

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestWhatForgexecSaysThatDidNotReachForge(t *testing.T) {
	s := sweep{&Service{Runners: Runners{URL: "forge.example.com:9094"}}}
	const (
		unheard = "the container started, but forgexec in it did not reach Forge within 5m0s: check FORGE_RUNNER_URL"
		runs    = "the container runs on worker-2, but forgexec in it did not reach forge.example.com:9094 within 5m0s; it says: "
	)
	for _, c := range []struct{ name, machine, tail, want string }{
		{"nothing", "worker-2", "", unheard},
		{"blank lines", "worker-2", "\n \n", unheard},
		{
			"a dial that failed", "worker-2",
			"time=2026-11-23T12:00:00Z level=WARN msg=\"the scheduler is away, trying again\" error=\"dial tcp: lookup forge.example.com: no such host\"\n",
			runs + "dial tcp: lookup forge.example.com: no such host",
		},
		{"an error of one word", "worker-2", "level=ERROR msg=\"forgexec ends\" error=EOF\n\n", runs + "EOF"},
		{"quotes within", "worker-2", `level=ERROR error="a \"name\" is wrong" more=1`, runs + `a "name" is wrong`},
		{"no error", "worker-2", "exec format error\n", runs + "exec format error"},
		{"no machine", "", "exec format error", strings.Replace(runs, " on worker-2", "", 1) + "exec format error"},
		{"a long line", "worker-2", strings.Repeat("ö", 200), runs + strings.Repeat("ö", 150) + "…"},
		{"bytes that are no text", "worker-2", "a\xffb\x00\x1b[31mc", runs + "a\uFFFDbc"},
	} {
		if got := s.neverAttached(&store.Attempt{Machine: c.machine}, c.tail); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
