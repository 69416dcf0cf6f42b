package plan

import (
	"maps"
	"slices"
	"testing"

	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Each kind is read, by the event alone or by asking, and each that an intent can
// have is applied.
func TestTheTablesCoverTheSameKinds(t *testing.T) {
	s := &Service{}
	asking, applied := s.askingDeciders(), s.appliers()
	var wanted []trigger.Kind
	for _, kind := range trigger.Kinds() {
		switch {
		case kind == trigger.InstallationChanged: // decided where it comes in
		case kind == trigger.PullRequestMarked: // applied as one that was offered
		case asking[kind] == nil:
			wanted = append(wanted, kind)
		}
	}
	wanted = append(wanted, trigger.PullRequestEnded, trigger.RebuildAsked, trigger.CancelAsked, trigger.ApprovalGiven, trigger.RemoteAsked, trigger.ManualAsked)
	slices.Sort(wanted)
	if got := slices.Sorted(maps.Keys(applied)); !slices.Equal(got, wanted) {
		t.Errorf("applied are the kinds %v, wanted %v", got, wanted)
	}
	for kind := range asking {
		if !slices.Contains(trigger.Kinds(), kind) {
			t.Errorf("kind %d is asked about, and no event is of it", kind)
		}
	}
}
