package wire_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

const killsInAGraph = 40

// Builds of twelve jobs run while Forge's processes are killed forty times: each job
// runs to an end once, after what it needs, and the total is right.
func TestSIGKILLInAGraphOfTwelveRunsEachJobOnce(t *testing.T) {
	t.Parallel()
	for _, d := range []deployment{{}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			s := newStorm(t, d, seed)
			s.push(t, "main", files(".forge.yml", graphOfTwelve(s.ledger)))
			for s.kills < killsInAGraph {
				if len(s.proposals) < 1+s.kills/4 { // so many that some are always on their way
					s.propose()
				}
				s.await(s.moments()[s.random.IntN(len(s.moments()))])
				s.strike()
			}
			s.calm()
			t.Logf("%d builds of twelve, %d kills", len(s.proposals), s.kills)
			ran := s.order()
			for _, p := range s.proposals {
				s.everyJobRanOnce(p, ran)
			}
		})
	}
}

// needsOfTwelve is the graph; a job comes after what it needs.
var needsOfTwelve = [][]string{
	{"setup"},
	{"lint", "setup"},
	{"vet", "setup"},
	{"generate", "setup"},
	{"unit", "generate"},
	{"race", "generate"},
	{"fuzz", "generate"},
	{"e2e", "unit", "race"},
	{"package", "lint", "vet", "unit"},
	{"sign", "package"},
	{"scan", "package", "fuzz"},
	{"publish", "sign", "scan", "e2e"},
}

func graphOfTwelve(ledger string) string {
	var file strings.Builder
	fmt.Fprintf(&file, "image: busybox\nenvironment: {LEDGER: '%s'}\njobs:\n", ledger)
	for _, job := range needsOfTwelve {
		check := ""
		if job[0] == "publish" {
			check = " && grep PASSED verdict"
		}
		fmt.Fprintf(&file, "  %s: {needs: [%s], execute: ['sh step.sh %s%s']}\n", job[0], strings.Join(job[1:], ", "), job[0], check)
	}
	return strings.Replace(file.String(), "needs: [], ", "", 1)
}

// order is at which line of the ledger each attempt has run which job. No line is
// there twice.
func (s *storm) order() map[string]int {
	s.t.Helper()
	text, err := os.ReadFile(s.ledger)
	if err != nil {
		s.t.Fatal(err)
	}
	ran := map[string]int{}
	for n, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if _, twice := ran[line]; twice {
			s.t.Errorf("ran twice: %s", line)
		}
		ran[line] = n + 1
	}
	return ran
}

func (s *storm) everyJobRanOnce(p *proposal, ran map[string]int) {
	s.t.Helper()
	client := schedulerv1.NewBuildServiceClient(s.dial(s.t, "scheduler"))
	answer, err := client.GetBuild(s.t.Context(), &schedulerv1.GetBuildRequest{BuildId: s.world.builds(s.t, p.head)[0].GetId()})
	if err != nil {
		s.t.Fatal(err)
	}
	b, message := answer.GetBuild(), ""
	if !p.passes {
		message = "1 of 12 jobs failed: publish"
	}
	if b.GetState() != p.outcome() || b.GetMessage() != message || len(b.GetJobs()) != len(needsOfTwelve) {
		s.t.Errorf("build %s is %v (%s), want %v: %v", b.GetId(), b.GetState(), b.GetMessage(), p.outcome(), b.GetJobs())
		return
	}
	s.shows(s.t, p.head, "forge/test", states()[b.GetState()])
	at := map[string]int{}
	for n, job := range b.GetJobs() {
		at[job.GetName()] = ran[fmt.Sprintf("%s-%d %s", job.GetId(), job.GetAttempt(), job.GetName())]
		if job.GetAttempt() != 1 || at[job.GetName()] == 0 {
			s.t.Errorf("job %s of build %s: attempt %d, ran at line %d", job.GetName(), b.GetId(), job.GetAttempt(), at[job.GetName()])
		}
		for _, need := range needsOfTwelve[n][1:] {
			if at[need] > at[job.GetName()] {
				s.t.Errorf("job %s of build %s ran before %s, which it needs", job.GetName(), b.GetId(), need)
			}
		}
		s.shows(s.t, p.head, "forge/test/"+job.GetTitle(), states()[job.GetState()])
	}
}
