package attempt

import (
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// What becomes of an attempt, by what the engine says of its container and by how
// long its runner is silent. Nothing that is gone has passed or failed.
func TestFateOfAttempts(t *testing.T) {
	const (
		grace, machineGrace = 10 * time.Second, 2 * time.Minute
		lost                = "lost"
	)
	runs := engine.Container{Running: true, ExitCode: -1, Machine: "worker-2"}
	away := engine.Container{Running: true, Unreachable: true, ExitCode: -1, Machine: "worker-2", Reason: "node is down"}
	nameless := engine.Container{Unreachable: true, ExitCode: -1}
	exited := func(code int, ending engine.Ending, reason string) engine.Container {
		return engine.Container{ExitCode: code, Ending: ending, Reason: reason}
	}
	for _, c := range []struct {
		name    string
		sees    engine.Container
		gone    bool
		silent  time.Duration
		serving time.Duration // how long runners have reached this process
		fate    string
		times   int32
		ending  string
		message string
	}{
		{name: "it runs", sees: runs, silent: time.Hour},
		{name: "out of reach, heard within the grace", sees: away, silent: machineGrace},
		{name: "out of reach, silent for longer", sees: away, silent: machineGrace + 1, fate: lost, times: 1, ending: "unreachable", message: "machine worker-2 has not been heard of for 2m0s"},
		{name: "out of reach, on a machine without a name", sees: nameless, silent: time.Hour, fate: lost, times: 1, ending: "unreachable", message: "machine worker-1 has not been heard of for 2m0s"},
		{name: "out of reach, and Forge itself was away", sees: away, silent: time.Hour, serving: machineGrace},
		{name: "out of reach, and Forge is back for longer", sees: away, silent: time.Hour, serving: machineGrace + 1, fate: lost, times: 1, ending: "unreachable", message: "machine worker-2 has not been heard of for 2m0s"},
		{name: "ended, heard just now", sees: exited(1, 0, ""), silent: grace},
		{name: "ended by itself", sees: exited(1, 0, ""), silent: grace + 1, fate: lost, times: 1, ending: "ended", message: "the container ended with exit code 1 before its commands did"},
		{name: "ended with 0", sees: exited(0, 0, ""), silent: grace + 1, fate: lost, times: 1, ending: "ended", message: "the container ended with exit code 0 before its commands did"},
		{name: "ended, and Forge itself was away", sees: exited(1, 0, ""), silent: time.Hour, serving: time.Second, fate: lost, times: 1, ending: "ended", message: "the container ended with exit code 1 before its commands did"},
		{name: "ended, with the engine's words", sees: exited(137, 0, "killed (137), perhaps at its memory limit of 2GiB"), silent: grace + 1, fate: lost, times: 1, ending: "ended", message: "the container ended with exit code 137 before its commands did: killed (137), perhaps at its memory limit of 2GiB"},
		{name: "ended without a code", sees: exited(-1, 0, "its service was removed"), silent: grace + 1, fate: lost, times: 1, ending: "ended", message: "the container ended before its commands did: its service was removed"},
		{name: "withdrawn", sees: exited(-1, engine.Withdrawn, "machine worker-2 has left the swarm"), silent: grace + 1, fate: lost, times: 2, ending: "withdrawn", message: "the container ended before its commands did: machine worker-2 has left the swarm"},
		{name: "withdrawn, heard just now", sees: exited(-1, engine.Withdrawn, ""), silent: grace},
		{name: "out of memory", sees: exited(137, engine.OutOfMemory, "OOMKilled"), silent: grace + 1, fate: "failed", ending: "out_of_memory", message: "the memory limit of 2.0 GiB was reached"},
		{name: "out of memory, heard just now", sees: exited(137, engine.OutOfMemory, ""), silent: grace},
		{name: "out of disk", sees: exited(-1, engine.OutOfDisk, "Evicted"), silent: grace + 1, fate: "failed", ending: "out_of_disk", message: "used more disk than its limit of 10GiB"},
		{name: "out of disk, heard just now", sees: exited(-1, engine.OutOfDisk, ""), silent: grace},
		{name: "gone", gone: true, silent: grace + 1, fate: lost, times: 1, ending: "gone", message: "the container is gone"},
		{name: "gone, heard just now", gone: true, silent: grace},
	} {
		clock := kittest.NewClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		if c.serving == 0 {
			c.serving = 24 * time.Hour
		}
		s := &Service{
			now: clock.Now, serving: clock.Now().Add(-c.serving),
			Runners: Runners{Grace: grace, MachineGrace: machineGrace}, Limits: Limits{Memory: 2 << 30, Disk: "10GiB"},
		}
		f := sweep{s}.fateOf(&store.Attempt{Contact: clock.Now().Add(-c.silent), Machine: "worker-1"}, c.sees, !c.gone)
		if f == nil {
			f = &fate{message: func(*Service, *store.Build) string { return "" }}
		}
		got := lost
		switch {
		case f.ending == "":
			got = ""
		case f.state != 0:
			got = wording.Value(f.state)
		}
		if message := f.message(s, &store.Build{Build: &schedulerv1.Build{}}); got != c.fate || f.times != c.times || f.ending != c.ending || message != c.message {
			t.Errorf("%s: %q %q, %d times, %q; want %q %q, %d times, %q", c.name, got, f.ending, f.times, message, c.fate, c.ending, c.times, c.message)
		}
	}
}
