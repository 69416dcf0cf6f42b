package wire_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// queued is a file whose pushes wait for a gate, each for its own, in one group.
func queued(gates, group string) string {
	return lines(
		"image: busybox", "execute: 'true'",
		"concurrency: "+group,
		`push: {branches: main, execute: 'while [ ! -e "`+gates+`/$FORGE_SHA" ]; do sleep 0.1; done; echo done'}`,
		`manual: {inputs: {version: {}}, execute: 'echo "$INPUT_VERSION"'}`,
	)
}

// Builds of a group run in order, by push and by hand, with Forge killed in between; what
// they wait for is said where people look. A pull request that names the group is not held.
func TestBuildsOfAConcurrencyGroupRunInOrder(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		gates := t.TempDir()
		w := newWorld(t, map[string]string{".forge.yml": queued(gates, "the only machine")})
		w.deploy(t, d)
		open := func(sha string) { must(t, os.WriteFile(filepath.Join(gates, sha), nil, 0o600)) }
		of := func(sha string) (found *schedulerv1.Build) {
			kittest.Eventually(t, patience, func() error {
				for _, b := range w.builds(t, sha) {
					if b.GetAction() == schedulerv1.Build_ACTION_PUSH {
						found = b
						return nil
					}
				}
				return errors.New("no build of " + sha)
			})
			return found
		}
		state := func(id, want string) {
			t.Helper()
			kittest.Eventually(t, patience, func() error {
				if out, err := w.verb(t, "builds", "show", id); err != nil || !strings.Contains(out, want) {
					return errors.New(out)
				}
				return nil
			})
		}
		first := w.push(t, "main", files("a", "1\n"))
		state(of(first).GetId(), "running")
		second := w.push(t, "main", files("a", "2\n"))
		status := w.shows(t, second, "forge/push", "pending")
		kittest.Eventually(t, patience, func() error {
			if status = w.shows(t, second, "forge/push", "pending"); !strings.Contains(status.Description, of(first).GetId()) {
				return errors.New(status.Description)
			}
			return nil
		})
		waits := "waits for build " + of(first).GetId() + " of concurrency group the only machine"
		state(of(second).GetId(), waits)
		if page := w.page(t, status.TargetURL); !strings.Contains(page, waits) {
			t.Errorf("the page does not say what it waits for\n%s", page)
		}
		hand := w.says(t, "waits for build "+of(second).GetId(), "builds", "create", owner+"/"+repo, "--input=version=1.2")
		if !strings.Contains(hand, "waiting") {
			t.Errorf("by hand: %s", hand)
		}
		_, head := w.propose(t, "change", files("a", "3\n"))
		w.shows(t, head, "forge/test", "success")

		for _, p := range w.processes {
			p.kill()
			p.begin(t)
		}
		w.awaitUp(t)
		open(first)
		w.shows(t, first, "forge/push", "success")
		state(of(second).GetId(), "running")
		open(second)
		w.shows(t, second, "forge/push", "success")
		w.shows(t, second, "forge/manual", "success")

		w.push(t, "main", files(".forge.yml", queued(gates, `{group: "of ${FORGE_REF}", cancel: true}`)))
		third := w.push(t, "main", files("a", "4\n"))
		state(of(third).GetId(), "running")
		fourth := w.push(t, "main", files("a", "5\n"))
		w.shows(t, third, "forge/push", "error")
		state(of(third).GetId(), "build "+of(fourth).GetId()+" of concurrency group of refs/heads/main took its place")
		state(of(fourth).GetId(), "running")
		open(fourth)
		w.shows(t, fourth, "forge/push", "success")
	})
}
