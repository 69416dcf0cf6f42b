package schedule

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// ListSchedules lists schedules.
func (s *Service) ListSchedules(ctx context.Context, req *schedulerv1.ListSchedulesRequest) (*schedulerv1.ListSchedulesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	var after store.ScheduleKey
	if err := rpc.ParsePageToken(req.GetPageToken(), &after.RepositoryID, &after.Name); err != nil {
		return nil, err
	}
	found, err := s.store.ListSchedules(ctx, req.GetRepository(), after, size+1)
	if err != nil {
		return nil, fmt.Errorf("list schedules: %w", err)
	}
	answer := &schedulerv1.ListSchedulesResponse{}
	found, answer.NextPageToken = rpc.CutPage(found, size, func(last store.ListedSchedule) []any { return []any{last.RepositoryID, last.Name} })
	for _, c := range found {
		answer.Schedules = append(answer.Schedules, show(c))
	}
	return answer, nil
}

func show(c store.ListedSchedule) *schedulerv1.Schedule {
	return &schedulerv1.Schedule{
		Repository: wording.FullName(c.File.Repository), Name: c.Name, Cron: c.Asked().GetCron(), Zone: cmp.Or(c.Asked().GetZone(), "UTC"), Branch: c.Asked().GetBranch(),
		NextTime: timeOf(c.Next), LastTime: timeOf(c.Last), LastBuildId: c.LastBuild, Message: c.Message, Problem: c.File.Problem,
	}
}

func timeOf(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}
