package scheduler

import (
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/outbox"
)

// The first step prints too, and more than a report of the second takes.
func TestReportOfAFailureBringsTheLastOutputOfTheStepAtFault(t *testing.T) {
	line := strings.Repeat("x", 1<<10-1) + "\n"
	for name, c := range map[string]struct {
		lines int
		want  string
	}{
		"all of it":      {2, line + line + "FAIL\n"},
		"the last of it": {70, strings.Repeat(line, outbox.ReportedOutput>>10-1) + "FAIL\n"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				id := r.built(opened(1, "aaa"))
				u := r.attach(r.spec(id, 1).Runner.Token)
				sequence := int64(4)
				u.send(began(1, 1), printed(2, 1, "vetted\n"), exited(3, 1, 0), began(4, 2))
				for range c.lines {
					sequence++
					u.send(printed(sequence, 2, line))
				}
				u.send(printed(sequence+1, 2, "FAIL\n"), exited(sequence+2, 2, 1), over(sequence+3, schedulerv1.Ended_CAUSE_DONE))
				b := r.becomes(id, schedulerv1.Build_STATE_FAILED)
				r.shown(b.GetSha(), b.GetContext(), schedulerv1.Build_STATE_FAILED)
				if got := string(r.reporter.shows(b.GetSha(), b.GetContext()).GetOutput()); got != c.want {
					t.Errorf("%d bytes, want %d: …%q", len(got), len(c.want), got[max(0, len(got)-20):])
				}
			})
		})
	}
}

func TestReportOfAPassedBuildBringsNoOutput(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		r.pass(id)
		b := r.build(id)
		r.shown(b.GetSha(), b.GetContext(), schedulerv1.Build_STATE_PASSED)
		if got := r.reporter.shows(b.GetSha(), b.GetContext()).GetOutput(); len(got) > 0 {
			t.Errorf("brought %q", got)
		}
	})
}
