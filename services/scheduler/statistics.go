package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	usualDays = 30
	mostDays  = 90
)

// GetBuildStatistics counts a repository's builds by the day they ended on.
func (s *Service) GetBuildStatistics(ctx context.Context, req *schedulerv1.GetBuildStatisticsRequest) (*schedulerv1.GetBuildStatisticsResponse, error) {
	if req.GetRepository() == "" {
		return nil, fault.New(fault.Invalid, "repository: which one, as owner/name")
	}
	if req.GetDays() < 0 {
		return nil, fault.Newf(fault.Invalid, "days is %d: expected 1 to %d, or 0 for %d", req.GetDays(), mostDays, usualDays)
	}
	count := min(cmp.Or(int(req.GetDays()), usualDays), mostDays)
	today := s.deps.Now().UTC().Truncate(24 * time.Hour)
	first := today.AddDate(0, 0, 1-count)
	days, err := s.store.BuildDays(ctx, req.GetRepository(), req.GetActions(), first, count)
	if err != nil {
		return nil, fmt.Errorf("statistics of %s: %w", req.GetRepository(), err)
	}
	answer := &schedulerv1.GetBuildStatisticsResponse{}
	for n, day := range days {
		shown := &schedulerv1.BuildDay{Date: first.AddDate(0, 0, n).Format(time.DateOnly)}
		for state, count := range day.Counts {
			switch state {
			case schedulerv1.Build_STATE_PASSED:
				shown.Passed += count
			case schedulerv1.Build_STATE_FAILED, schedulerv1.Build_STATE_TIMED_OUT:
				shown.Failed += count
			case schedulerv1.Build_STATE_CANCELLED:
				shown.Cancelled += count
			default:
				shown.Errored += count
			}
		}
		if shown.GetPassed() > 0 {
			shown.MedianDuration = durationpb.New(day.Median)
		}
		answer.Days = append(answer.Days, shown)
	}
	return answer, nil
}
