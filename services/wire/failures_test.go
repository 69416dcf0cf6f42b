package wire_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// What a user may get wrong ends with a status and a decision that say so.
func TestMistakesAreExplained(t *testing.T) {
	for name, c := range map[string]struct {
		files    map[string]string
		links    map[string]string
		state    string // of forge/test; "" for none
		says     string // the status's description
		decision string // the scheduler's
		reason   eventv1.Reason
	}{
		"misspelt key": {
			files: map[string]string{".forge.yml": lines("image: busybox", "exceute: [true]")},
			state: "error", says: `.forge.yml:2:1: unknown key "exceute", did you mean "execute"?`,
			decision: "unknown key", reason: eventv1.Reason_REASON_INVALID_CONFIG,
		},
		"unknown command": {
			files: map[string]string{".forge.yml": lines("image: busybox", "execute: [frobnicate]")},
			state: "failure", says: `Step 1 "frobnicate" failed (exit 127)`,
			decision: "built", reason: eventv1.Reason_REASON_BUILT,
		},
		"link that leads outside": {
			files: map[string]string{".forge.yml": lines("image: busybox", "execute: ['test \"$(readlink passwd)\" = /etc/passwd']")},
			links: map[string]string{"passwd": "/etc/passwd"},
			state: "success", says: `Passed`,
			decision: "built", reason: eventv1.Reason_REASON_BUILT,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hello())
			w.up(t)
			_, sha := w.propose(t, "change", githubsim.Commit{Files: c.files, Links: c.links})
			decided := w.decision(t)
			if decided.GetReason() != c.reason || !strings.Contains(decided.GetText(), c.decision) {
				t.Errorf("decided %s %q, want %s %q", decided.GetReason(), decided.GetText(), c.reason, c.decision)
			}
			if c.state != "" {
				if status := w.shows(t, sha, "forge/test", c.state); !strings.Contains(status.Description, c.says) {
					t.Errorf("the status says %q, want %q", status.Description, c.says)
				}
			}
		})
	}
}

func TestRepositoryWithoutForgeYmlIsLeftAlone(t *testing.T) {
	w := newWorld(t, map[string]string{"README.md": "no CI here\n"})
	w.up(t)
	_, sha := w.propose(t, "change", files("README.md", "still none\n"))
	decided := w.decision(t)
	if want := "no .forge.yml at " + sha[:7]; decided.GetText() != want || decided.GetReason() != eventv1.Reason_REASON_NO_CONFIG {
		t.Errorf("decided %s %q, want %q", decided.GetReason(), decided.GetText(), want)
	}
	if history, err := w.sim.StatusHistory(owner, repo, sha); err != nil || len(history) > 0 {
		t.Errorf("statuses: %v, %v; want none", history, err)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	w := newWorld(t, hello())
	port := taken.Addr().(*net.TCPAddr).Port
	w.refused(t, fmt.Sprintf("127.0.0.1:%d: the port is in use", port), "--address=127.0.0.1", fmt.Sprintf("--port=%d", port))
	w.refused(t, "FORGE_GRPC_ADDRESS", fmt.Sprintf("--port=%d", kittest.FreePort(t)), "--grpc-address="+taken.Addr().String())
}

func TestWrongSettingsStopStartUp(t *testing.T) {
	w := newWorld(t, hello())
	w.misused(t, "--capacity", "--capacity=many")
	w.refused(t, "use one of docker, process", "--engine=abacus")
	w.misused(t, "--port", "--prot=1")
	w.refused(t, "FORGE_GITHUB_APP_ID is missing", "--github-app-id=0")
}

// refused starts `forge up`, which must end at once and say the text.
func (s *server) refused(t *testing.T, text string, flags ...string) {
	t.Helper()
	s.ends(t, 1, text, flags...)
}

// misused does the same with a command line that cannot be read.
func (s *server) misused(t *testing.T, text string, flags ...string) {
	t.Helper()
	s.ends(t, 2, text, flags...)
}

func (s *server) ends(t *testing.T, code int, text string, flags ...string) {
	t.Helper()
	s.env = []string{fmt.Sprintf("FORGE_PORT=%d", kittest.FreePort(t)), "FORGE_GRPC_ADDRESS=" + kittest.FreeAddress(t), "FORGE_ENGINE=process"}
	p := s.start(t, "forge", append([]string{"up"}, flags...)...)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("forge up %v runs; it should have refused", flags)
	}
	if p.cmd.ProcessState.ExitCode() != code || !strings.Contains(p.output.String(), text) {
		t.Errorf("forge up %v: exit code %d, said\n%s\nwant %q", flags, p.cmd.ProcessState.ExitCode(), p.output, text)
	}
}

// decision waits for what the scheduler decided about the only pull_request event.
func (s *server) decision(t *testing.T) (decided *eventv1.Decision) {
	t.Helper()
	deliveries := gatewayv1.NewDeliveryServiceClient(s.dial(t, "gateway"))
	kittest.Eventually(t, patience, func() error {
		list, err := deliveries.ListDeliveries(asAdmin(t.Context()), &gatewayv1.ListDeliveriesRequest{Event: "pull_request"})
		if err != nil {
			return err
		}
		for _, forward := range firstDelivery(list).GetForwards() {
			if forward.GetReceiver() == "scheduler" && forward.GetDecision() != nil {
				decided = forward.GetDecision()
				return nil
			}
		}
		return errors.New("no decision by the scheduler yet")
	})
	return decided
}

func firstDelivery(list *gatewayv1.ListDeliveriesResponse) *gatewayv1.Delivery {
	if len(list.GetDeliveries()) == 0 {
		return nil
	}
	return list.GetDeliveries()[0]
}
