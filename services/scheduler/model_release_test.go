package scheduler

import (
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// releaseHeld has a person who has seen to it that nothing runs any more release an
// environment.
func releaseHeld(m *model) {
	for _, e := range m.environments() {
		if e.HeldBecause == "" {
			continue
		}
		for _, name := range m.engine.names() {
			if id, _, _ := store.KnownAttempt(name); store.WholeID(id) == e.Holder {
				m.notef("%s is gone for good", name)
				delete(m.engine.containers, name)
			}
		}
		m.notef("%s of %d, from %s", e.Name, e.RepositoryID, e.Holder)
		_, err := m.service.ReleaseEnvironment(m.t.Context(), &schedulerv1.ReleaseEnvironmentRequest{
			Repository: fmt.Sprintf("Acme/shop-%d", e.RepositoryID), Environment: e.Name, Force: true,
		})
		m.failed("release", err, fault.Conflict)
		return
	}
}
