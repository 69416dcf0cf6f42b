package scheduler

import (
	"context"
	"errors"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/find"
	"github.com/forge-ci/forge/services/scheduler/logs"
)

// SearchLog looks for a text in a log.
func (s *logService) SearchLog(req *schedulerv1.SearchLogRequest, stream schedulerv1.LogService_SearchLogServer) error {
	ctx := stream.Context()
	finder, err := find.Compile(find.Query{Text: req.GetQuery(), Regex: req.GetRegex(), MatchCase: req.GetMatchCase()})
	if err != nil {
		return fault.Newf(fault.Invalid, "%w", err)
	}
	if req.GetAroundLine() < 0 || req.GetMaxHits() < 0 {
		return fault.New(fault.Invalid, "lines count from 1, hits from 0")
	}
	most := int(req.GetMaxHits())
	if most == 0 || most > logs.MaxHits {
		most = logs.MaxHits
	}
	l, err := s.open(ctx, req.GetBuildId(), req.GetAttempt())
	if err != nil {
		return err
	}
	last := &schedulerv1.SearchLogResponse{}
	searching, cancel := context.WithTimeout(ctx, searchWithin)
	defer cancel()
	err = s.service.logs.Search(searching, l.buildID, l.attempt, l.index, finder, req.GetAroundLine(), most, func(h logs.Hits) error {
		last = &schedulerv1.SearchLogResponse{Lines: h.Lines, Before: h.Before, HitCount: h.Count, BeforeCount: h.BeforeCount, Searched: h.Searched}
		return stream.Send(last)
	})
	incomplete := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if err != nil && !incomplete {
		return err
	}
	return stream.Send(&schedulerv1.SearchLogResponse{
		HitCount: last.GetHitCount(), BeforeCount: last.GetBeforeCount(), Searched: last.GetSearched(), Done: true, Incomplete: incomplete,
	})
}
