package wire_test

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// A Forge is copied while webhooks come and builds run, and is lost some time after, with
// its machine. Restored elsewhere it knows all that was decided up to the copy, fetches what
// came since, and builds on; GitHub shows in the end what is true, and nothing twice.
func TestABackupUnderLoadIsRestoredElsewhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newStorm(t, deployment{}, seed)
	for len(s.proposals) < 8 {
		s.work()
	}
	before := s.deliveries()
	known := s.builds()
	file, keys := filepath.Join(s.dir, "forge.tar.zst"), filepath.Join(s.dir, "keys")
	copied := make(chan string, 1)
	go func() { copied <- s.verb("forge-data", "backup", file, "--keys="+keys) }()
	s.work()
	if said := <-copied; !strings.Contains(said, "holds 3 databases") || !strings.Contains(said, "holds the keys") {
		t.Fatalf("backup: %s", said)
	}
	s.work()
	lost := s.processes[0]
	lost.kill()
	builds, err := processesUnder(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for pid := range builds {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	if said := s.verb("elsewhere", "restore", file, "--keys="+keys); !strings.Contains(said, "has the state of") || strings.Contains(said, "missing") {
		t.Fatalf("restore: %s", said)
	}
	lost.env = append(lost.env, "FORGE_DATA_DIR="+filepath.Join(s.dir, "elsewhere"))
	lost.begin(t)
	s.calm()
	s.everyDeliveryIsDecided()

	decided := map[string]*gatewayv1.Delivery{}
	for _, d := range s.deliveries() {
		decided[d.GetId()] = d
	}
	for _, d := range before {
		was, is := d.GetForwards(), decided[d.GetId()].GetForwards()
		for n := range was {
			if text := was[n].GetDecision().GetText(); text != "" && (n >= len(is) || is[n].GetDecision().GetText() != text) {
				t.Errorf("delivery %s was decided as %q, and is %v", d.GetId(), text, is)
			}
		}
	}
	ids := map[string]*schedulerv1.Build{}
	for _, b := range s.builds() {
		ids[b.GetId()] = b
	}
	for _, b := range known {
		if ids[b.GetId()] == nil {
			t.Errorf("build %s of %.7s, made before the copy, is gone", b.GetId(), b.GetSha())
		}
	}
	s.lostDeploysRunAgain()
	s.everyBuildShowsRight() // what had ended after the copy runs again, and is pending again
	s.nothingIsDoubled()
	if !strings.Contains(s.verb("elsewhere", "restore", file), "--force") {
		t.Error("it was restored over the state that is there")
	}
}

// lostDeploysRunAgain does what a person does about deploys that ran when the copy was
// made, of which nobody can tell what they did. One that is not the newest stays lost.
func (s *storm) lostDeploysRunAgain() {
	s.t.Helper()
	builds := schedulerv1.NewBuildServiceClient(s.dial(s.t, "scheduler"))
	s.lost = map[string]bool{}
	for _, b := range s.builds() {
		if b.GetReason() != schedulerv1.Build_REASON_LOST || b.GetEnvironment() == "" {
			continue
		}
		s.lost[b.GetId()] = true
		_, err := builds.RetryBuild(asAdmin(s.t.Context()), &schedulerv1.RetryBuildRequest{BuildId: b.GetId()})
		switch status.Code(err) {
		case codes.OK:
		case codes.FailedPrecondition:
			s.lost[b.GetSha()] = true
		default:
			s.t.Fatal(err)
		}
	}
	s.calm()
}

// nothingIsDoubled: of a commit one build of a kind counts, and GitHub has one pull request
// into production that is open, which promotion waits for.
func (s *storm) nothingIsDoubled() {
	s.t.Helper()
	made := map[string]int{}
	for _, b := range s.builds() {
		if b.GetRetryOf() == "" {
			made[b.GetSha()+" "+b.GetContext()]++
		}
	}
	for of, count := range made {
		if count > 1 {
			s.t.Errorf("%d builds were made of %s", count, of)
		}
	}
	if len(s.merges) > 0 {
		s.promotion(s.t)
	}
}

// verb runs a verb of forge on a data directory, and returns what it says.
func (s *storm) verb(data string, args ...string) string {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(binDir, "forge"), args...)
	cmd.Env = append(slices.Clone(s.processes[0].env), "FORGE_DATA_DIR="+filepath.Join(s.dir, data))
	said, _ := cmd.CombinedOutput() // what it says is what counts
	return string(said)
}
