package wire_test

import (
	"fmt"
	"testing"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// GitHub sends no push of more than three tags at once, and loses one now and then.
// A look finds them, once.
func TestPushesThatGitHubDoesNotTellOfAreBuilt(t *testing.T) {
	w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: 'true'", "push:", "  branches: [main]", "  tags: ['v*']", "  execute: 'true'")})
	for n := range 500 {
		must(t, w.sim.CreateTag(owner, repo, fmt.Sprintf("v0.%d", n), "main"))
	}
	w.up(t)
	deliveries := gatewayv1.NewDeliveryServiceClient(w.dial(t, "gateway"))
	look := func() []string {
		t.Helper()
		found, err := deliveries.RecoverDeliveries(asAdmin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
		must(t, err)
		return found.GetSweptDeliveryIds()
	}
	kittest.Eventually(t, patience, func() error { // once it runs, it takes turns with the look at the start
		_, err := deliveries.RecoverDeliveries(asAdmin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
		return err
	})
	kittest.Eventually(t, patience, func() error { // another look may go on beside it
		before := len(w.sim.Calls())
		kittest.Want(t, len(look()), 0, "the first look at a repository with 500 tags")
		if calls := len(w.sim.Calls()) - before; calls > 15 {
			return fmt.Errorf("a look took %d calls", calls)
		}
		return nil
	})

	must(t, w.sim.CreateTags(owner, repo, "main", "v1.0", "v1.1", "v1.2", "v1.3", "v1.4", "other"))
	w.sim.LoseDeliveries(1)
	sha := w.push(t, "main", files("file", "lost"))
	kittest.Want(t, len(look()), 6, "five tags and a branch")
	w.shows(t, sha, "forge/push", "success")
	for n := range 5 {
		w.until(t, "push", "built")
		_ = n
	}
	kittest.Want(t, len(look()), 0, "the same once more")
	told := w.push(t, "main", files("file", "told"))
	w.shows(t, told, "forge/push", "success")
	kittest.Want(t, len(look()), 0, "what a delivery told of")
}
