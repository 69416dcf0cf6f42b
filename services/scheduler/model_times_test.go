package scheduler

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// modelSchedules are those of each file of a story that has some.
func (m modelSiblings) modelSchedules() []*configv1.Schedule {
	if !m.timed {
		return nil
	}
	job := &configv1.Pipeline{Commands: modelCommands()}
	return []*configv1.Schedule{{Name: "hourly", Cron: "0 * * * *", Execute: job}, {Name: "often", Cron: "*/5 * * * *", Execute: job}}
}

// FindCommit is config's.
func (m modelSiblings) FindCommit(_ context.Context, req *configv1.FindCommitRequest, _ ...grpc.CallOption) (*configv1.FindCommitResponse, error) {
	if m.unsure {
		return nil, fault.New(fault.Unavailable, "GitHub does not answer")
	}
	of := req.GetRepository()
	return &configv1.FindCommitResponse{
		Repository: &eventv1.Repository{Id: of.GetId(), Owner: of.GetOwner(), Name: of.GetName(), DefaultBranch: "main"}, Branch: "main", Sha: "tip",
	}, nil
}

// look has replicas look at what is due: files, and schedules, of which some are carried
// out late, or by two.
func look(m *model) {
	files, err := m.service.store.ClaimScheduleFiles(m.t.Context(), 2)
	m.failed("claim schedule files", err)
	for _, f := range files {
		m.service.schedules.Look(m.t.Context(), f)
	}
	claimed, err := m.service.store.ClaimSchedules(m.t.Context(), 2)
	m.failed("claim schedules", err)
	m.times = append(m.times, claimed...)
	for len(m.times) > 0 && m.random.IntN(3) > 0 {
		n := m.random.IntN(len(m.times))
		m.notef("%s of %d at %v", m.times[n].Name, m.times[n].RepositoryID, m.times[n].Next)
		m.service.schedules.Occur(m.t.Context(), m.times[n])
		if m.random.IntN(3) > 0 {
			m.times = slices.Delete(m.times, n, n+1)
		}
	}
}

// checkTimes: of a schedule no two builds are under way, no two are for one time, and
// none comes early.
func (m modelChecker) checkTimes(builds []*store.Build) {
	unfinished, ran := map[string]string{}, map[string]string{}
	for _, b := range builds {
		if b.GetAction() != schedulerv1.Build_ACTION_SCHEDULE || b.IsJob() {
			continue
		}
		of := fmt.Sprint(b.GetRepository().GetId(), b.GetSchedule())
		if !store.Ended(b.GetState()) {
			if other := unfinished[of]; other != "" {
				m.t.Errorf("builds %s and %s of one schedule are under way", other, b.GetId())
			}
			unfinished[of] = b.GetId()
		}
		if b.GetScheduleTime() == nil { // a person wanted it again
			continue
		}
		if b.GetScheduleTime().AsTime().After(b.GetCreateTime().AsTime()) {
			m.t.Errorf("build %s is of a time to come, %v", b.GetId(), b.GetScheduleTime().AsTime())
		}
		of += b.GetScheduleTime().AsTime().String()
		if other := ran[of]; other != "" {
			m.t.Errorf("builds %s and %s are of one time of a schedule", other, b.GetId())
		}
		ran[of] = b.GetId()
	}
}
