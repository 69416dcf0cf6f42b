package wire_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// Whoever lets a deploy go is asked about at GitHub; Forge is killed while that gives no
// answer, and again once the deploy has begun. It is let go once, and runs once.
func TestSIGKILLInTheMiddleOfAnApproval(t *testing.T) {
	for _, d := range []deployment{{}, {apart: true, postgres: true}} {
		t.Run(d.String(), func(t *testing.T) {
			if d.postgres {
				kittest.Require(t, "postgres")
			}
			w := newWorld(t, nil)
			ran, gate := filepath.Join(w.dir, "ran"), filepath.Join(w.dir, "gate")
			w.push(t, "main", files(".forge.yml", lines(
				"image: busybox", "environment: {RAN: '"+ran+"', GATE: '"+gate+"'}", "execute: 'true'", "deploy:",
				"  staging: 'true'",
				`  production: {after: staging, approval: true, run: 'echo once >>"$RAN"; until [ -e "$GATE" ]; do sleep 0.05; done'}`,
			)))
			w.deploy(t, d)
			struck := w.processes[0]
			if d.apart {
				struck = w.process("scheduler")
			}
			number, _ := w.propose(t, "till", files("file", "mine"))
			merged := w.merge(t, number)
			w.shows(t, merged, "forge/deploy-production", "pending")
			w.until(t, "pull_request", "built")

			asked := func() (n int) {
				for _, c := range w.sim.Calls() {
					if strings.HasSuffix(c.Path, "/collaborators/octocat/permission") {
						n++
					}
				}
				return n
			}
			before := asked()
			behave := w.sim.Misbehave(githubsim.Misbehaviour{Route: "/permission", Status: http.StatusBadGateway})
			_, err := w.sim.Comment(owner, repo, number, "octocat", "/forge deploy production")
			must(t, err)
			kittest.Eventually(t, patience, func() error {
				if asked() == before {
					return errors.New("GitHub is not asked who may")
				}
				return nil
			})
			struck.kill()
			behave()
			if _, err := os.Stat(ran); err == nil {
				t.Error("it runs, and nobody knows whether it may")
			}
			struck.begin(t)
			w.awaitUp(t)
			w.until(t, "issue_comment", fmt.Sprintf("approved: %.7s goes to production, by octocat", merged))
			kittest.Eventually(t, patience, func() error {
				_, err := os.Stat(ran)
				return err
			})
			struck.kill()
			struck.begin(t)
			w.awaitUp(t)
			must(t, os.WriteFile(gate, nil, 0o600))
			w.shows(t, merged, "forge/deploy-production", "success")
			if text, err := os.ReadFile(ran); err != nil || string(text) != "once\n" {
				t.Errorf("it ran as %q, %v", text, err)
			}
			kittest.Eventually(t, patience, func() error { // it is told apart from the status
				if got := deploymentsOf(t, w, merged); len(got) != 2 {
					return fmt.Errorf("GitHub knows of %v", got)
				}
				return nil
			})
		})
	}
}
