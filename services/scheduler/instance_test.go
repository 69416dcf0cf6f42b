package scheduler

import (
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestInstanceIsNamedOnce(t *testing.T) {
	kittest.DBs(t, "scheduler", Migrations(), func(t *testing.T, open func() *sqldb.DB) {
		var names []string
		for range 2 {
			name, err := store.Instance(t.Context(), open())
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if len(names[0]) != 26 || names[0] != names[1] {
			t.Errorf("named %q, after a restart %q; want one name of 26 letters and digits", names[0], names[1])
		}
	})
}
