package gateway

import (
	"strings"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestPageOfADeploySaysWhoLetsItGo(t *testing.T) {
	w := onSQLite(t, nil)
	waits := failedBuild()
	waits.State, waits.Message, waits.Approvers, waits.After = schedulerv1.Build_STATE_BLOCKED, "needs approval by ada or bob", []string{"ada", "bob"}, "canary"
	w.rooms.builds.build = waits
	for _, part := range []string{"may be approved by</dt><dd>ada, bob<", "deployed after</dt><dd>canary<", "needs approval by ada or bob"} {
		if _, body := w.get("/builds/b1"); !strings.Contains(body, part) {
			t.Errorf("it does not say %q", part)
		}
	}
	gone := failedBuild()
	gone.ApprovedBy, gone.ApproveTime = "ada", at(-8)
	w.rooms.builds.build = gone
	if _, body := w.get("/builds/b1"); !strings.Contains(body, "approved by</dt><dd>ada, <time") {
		t.Error("it does not say who let it go, and when")
	}
}
