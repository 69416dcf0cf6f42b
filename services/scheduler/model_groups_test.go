package scheduler

import (
	"fmt"
	"hash/crc32"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// groupOf is the concurrency group that the file of a commit names, in a story that has
// some.
func (m modelSiblings) groupOf(sha string) *configv1.Concurrency {
	if !m.grouped {
		return nil
	}
	return []*configv1.Concurrency{
		nil, {Group: "all"}, {Group: "all", Cancel: true}, {Group: "of ${FORGE_REF}", Cancel: true},
	}[crc32.ChecksumIEEE([]byte(sha))%4]
}

// checkGroups: of a group one build has the turn, and never nobody while some wait.
func (m modelChecker) checkGroups(byID map[string]*store.Build) {
	type member struct{ group, id string }
	members, err := sqldb.Collect(m.t.Context(), m.db.Read(), func(row sqldb.Row) (member, error) {
		var is member
		var repository int64
		err := row.Scan(&repository, &is.group, &is.id)
		is.group = fmt.Sprint(repository, " ", is.group)
		return is, err
	}, `SELECT repository_id, concurrency, id FROM builds WHERE concurrency <> '' ORDER BY number`)
	if err != nil {
		m.t.Fatal(err)
	}
	turn, waiting := map[string]string{}, map[string]string{}
	for _, is := range members {
		b := byID[is.id]
		if b.IsJob() || b.GetEnvironment() != "" || b.GetState() == schedulerv1.Build_STATE_BLOCKED {
			m.t.Errorf("%s is in group %s, and is %v", is.id, is.group, b.GetState())
		}
		if b.GetState() == schedulerv1.Build_STATE_WAITING {
			waiting[is.group] = is.id
			continue
		}
		if other := turn[is.group]; other != "" {
			m.t.Errorf("builds %s and %s have the turn of group %s", other, is.id, is.group)
		}
		turn[is.group] = is.id
	}
	for group, id := range waiting {
		if turn[group] == "" {
			m.t.Errorf("build %s waits in group %s, where nobody has the turn", id, group)
		}
	}
	for _, b := range byID {
		if b.GetReason() == schedulerv1.Build_REASON_CONCURRENCY && b.GetState() == schedulerv1.Build_STATE_CANCELLED && !b.IsJob() && b.GetSupersededBy() == "" {
			m.t.Errorf("build %s does not say which took its place", b.GetId())
		}
	}
}
