package gateway

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/find"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// logLines plays the scheduler's LogService, on the log of the builds.
type logLines struct {
	schedulerv1.UnimplementedLogServiceServer
	builds *builds

	mu        sync.Mutex
	changed   chan struct{} // closed when more was printed
	followers int           // since the beginning
	err       error
}

// add adds to the log.
func (l *logLines) add(text string) {
	l.builds.one.Lock()
	l.builds.log += text
	l.builds.one.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (l *logLines) change() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// all are the lines there are; steps that have begun say where.
func (l *logLines) all() (all []*schedulerv1.LogLine, steps []*schedulerv1.LogStep, over bool) {
	l.builds.one.Lock()
	defer l.builds.one.Unlock()
	over = l.builds.build.GetEndTime() != nil
	offset := int64(0)
	for text := range strings.Lines(l.builds.log) {
		line := &schedulerv1.LogLine{Number: int64(len(all) + 1), Offset: offset, Size: int64(len(text)), Text: []byte(strings.TrimSuffix(text, "\n"))}
		line.Open = !over && !strings.HasSuffix(text, "\n")
		switch {
		case strings.Contains(text, "error:"):
			line.Level = schedulerv1.LogLine_LEVEL_ERROR
		case strings.Contains(text, "warning:"):
			line.Level = schedulerv1.LogLine_LEVEL_WARNING
		}
		if len(line.GetText()) > 64<<10 {
			line.Text, line.Tail = line.GetText()[:16<<10], line.GetText()[len(line.GetText())-16<<10:]
		}
		line.Time, line.StepLine = at(line.GetNumber()), line.GetNumber()
		for _, step := range l.builds.build.GetSteps() {
			if step.GetStartTime() == nil || step.GetLogOffset() > offset || len(steps) > 0 && step.GetLogOffset() == 0 {
				continue
			}
			if n := len(steps); n == 0 || steps[n-1].GetNumber() < step.GetNumber() {
				steps = append(steps, &schedulerv1.LogStep{Number: step.GetNumber(), FirstLine: line.GetNumber()})
			}
		}
		if n := len(steps); n > 0 {
			steps[n-1].LineCount++
			line.Step, line.StepLine = steps[n-1].GetNumber(), steps[n-1].GetLineCount()
		}
		all, offset = append(all, line), offset+int64(len(text))
	}
	return all, steps, over
}

func (l *logLines) GetLog(context.Context, *schedulerv1.GetLogRequest) (*schedulerv1.GetLogResponse, error) {
	if l.err != nil {
		return nil, l.err
	}
	all, steps, over := l.all()
	log := &schedulerv1.Log{Attempt: l.builds.build.GetAttempt(), LineCount: int64(len(all)), Steps: steps, Over: over}
	for _, line := range all {
		log.Size += line.GetSize()
		if line.GetLevel() > 0 {
			log.Marks = append(log.Marks, &schedulerv1.LogMark{Line: line.GetNumber(), Level: line.GetLevel()})
		}
	}
	return &schedulerv1.GetLogResponse{Log: log}, nil
}

func (l *logLines) ReadLog(req *schedulerv1.ReadLogRequest, out grpc.ServerStreamingServer[schedulerv1.ReadLogResponse]) error {
	if req.GetFollow() {
		l.mu.Lock()
		l.followers++
		l.mu.Unlock()
	}
	line, offset, left := req.GetLine(), req.GetOffset(), int(req.GetPageSize())
	if left == 0 || req.GetFollow() {
		left = 1 << 30
	}
	for {
		changed := l.change()
		all, _, over := l.all()
		if line > int64(len(all)) && !req.GetFollow() && line > 1 {
			return status.Error(codes.OutOfRange, "past the end")
		}
		resp := &schedulerv1.ReadLogResponse{LineCount: int64(len(all)), Over: over}
		for _, one := range all {
			if one.GetNumber() < line || one.GetOffset() < offset || left == 0 {
				continue
			}
			resp.Lines, left = append(resp.Lines, one), left-1
			if !one.GetOpen() {
				offset = one.GetOffset() + one.GetSize()
			}
			if len(resp.GetLines()) == 1000 {
				if err := out.Send(resp); err != nil {
					return err
				}
				resp = &schedulerv1.ReadLogResponse{LineCount: int64(len(all)), Over: over}
			}
		}
		if err := out.Send(resp); err != nil || !req.GetFollow() || over {
			return err
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

func (l *logLines) SearchLog(req *schedulerv1.SearchLogRequest, out grpc.ServerStreamingServer[schedulerv1.SearchLogResponse]) error {
	finder, err := find.Compile(find.Query{Text: req.GetQuery(), Regex: req.GetRegex(), MatchCase: req.GetMatchCase()})
	if err != nil {
		return fault.Newf(fault.Invalid, "%w", err)
	}
	all, _, _ := l.all()
	var before, after []int64
	for _, line := range all {
		for range finder.Each([]byte(terminal.Text(line.GetText())), &find.Scratch{}) {
			if line.GetNumber() < req.GetAroundLine() {
				before = append(before, line.GetNumber())
			} else {
				after = append(after, line.GetNumber())
			}
		}
	}
	most := int(req.GetMaxHits())
	if most == 0 {
		most = 5000
	}
	total := int64(len(before) + len(after))
	for _, resp := range []*schedulerv1.SearchLogResponse{
		{Lines: after[:min(most, len(after))], HitCount: int64(len(after))},
		{Lines: before[max(0, len(before)-most):], Before: true, HitCount: total, BeforeCount: int64(len(before))},
		{HitCount: total, BeforeCount: int64(len(before)), Done: true},
	} {
		if err := out.Send(resp); err != nil {
			return err
		}
	}
	return nil
}
