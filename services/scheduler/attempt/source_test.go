package attempt

import (
	"testing"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// A runner gets what it says that it takes, however old it is.
func TestSourceIsWhatTheRunnerTakes(t *testing.T) {
	for _, c := range []struct {
		hello            *schedulerv1.Hello
		checkout, packed bool
	}{
		{&schedulerv1.Hello{}, false, false},
		{&schedulerv1.Hello{TakesCheckout: true}, true, false},
		{&schedulerv1.Hello{TakesCheckout: true, TakesPacked: true}, true, true},
	} {
		request := sourceRequest(&store.Build{Build: &schedulerv1.Build{}}, c.hello)
		if checkout := request.GetCheckout() != nil; checkout != c.checkout || request.GetPacked() != c.packed {
			t.Errorf("%v: asked for %v", c.hello, request)
		}
	}
}
