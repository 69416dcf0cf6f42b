package attempt

import (
	"errors"
	"fmt"
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/wording"
)

func TestWhatEnginesWaitForHasAReason(t *testing.T) {
	for what := engine.WaitOther + 1; what <= engine.WaitRetry; what++ {
		if _, waits := wording.Waits(reasonOf(what)); !waits {
			t.Errorf("%d is %v, for which nothing waits", what, reasonOf(what))
		}
	}
}

func TestStartWithoutAnAnswerSaysWhatItWaitsFor(t *testing.T) {
	away := errors.New("connection refused")
	for _, c := range []struct {
		answer error
		reason schedulerv1.Build_Reason
		text   string
	}{
		{away, schedulerv1.Build_REASON_ENGINE_UNAVAILABLE, "the engine does not answer: connection refused"},
		{fmt.Errorf("create the network: %w", errors.New("mkdir: no space left on device")), schedulerv1.Build_REASON_DISK, "create the network: mkdir: no space left on device"},
		{unmergedError{errors.New("merge of aaa: config is away")}, schedulerv1.Build_REASON_SOURCE, "merge of aaa: config is away"},
	} {
		reason, text := unstarted(c.answer)
		if reason != c.reason || text != c.text {
			t.Errorf("%v: %v, %q", c.answer, reason, text)
		}
	}
}
