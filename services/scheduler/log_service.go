package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/logs"
	"github.com/forge-ci/forge/services/scheduler/store"
)

const (
	// logMarks is how many lines are named at most that tell of something wrong.
	logMarks = 1000
	// logLines and logBytes bound one message; the latter is passed by one line at most.
	logLines, logBytes = 1000, 1 << 20
	// logEvery is how long a follower waits for more lines, so that what prints line
	// after line does not make a message of each.
	logEvery = 30 * time.Millisecond
	// searchWithin is how long a search may take.
	searchWithin = 20 * time.Second
)

// logService shows logs by their lines.
type logService struct {
	schedulerv1.UnimplementedLogServiceServer
	service *Service
}

// lines is a log, by its lines, as it stood.
type lines struct {
	buildID string
	attempt int32
	read    logs.Page
	index   *logs.Index
	over    bool
	steps   []*schedulerv1.LogStep // without how many lines they have
	offsets []int64                // where they begin
}

// open is the log of an attempt as it stands.
func (s *logService) open(ctx context.Context, buildID string, attempt int32) (lines, error) {
	number, err := s.service.attemptToWatch(ctx, buildID, attempt, false)
	if err != nil {
		return lines{}, err
	}
	if number == 0 {
		b, err := store.ReadBuild(ctx, s.service.store.DB.Read(), buildID, "")
		if err != nil {
			return lines{}, err
		}
		return lines{buildID: buildID, index: &logs.Index{}, over: store.Ended(b.GetState())}, nil
	}
	a, err := store.ReadAttempt(ctx, s.service.store.DB.Read(), buildID, number, "")
	if err != nil {
		return lines{}, err
	}
	if a.LogSize > 0 && a.Ended && s.service.pruned(ctx, buildID) {
		return lines{}, s.service.logGone()
	}
	index, err := s.service.logs.Index(ctx, buildID, number, a.LogSize)
	if err != nil {
		return lines{}, err
	}
	l := lines{buildID: buildID, attempt: number, read: s.service.logs.Read(ctx, buildID, number), index: index, over: a.Ended}
	return l, s.addSteps(ctx, &l)
}

// addSteps says where steps begin.
func (s *logService) addSteps(ctx context.Context, l *lines) error {
	begun, err := store.BegunSteps(ctx, s.service.store.DB.Read(), l.buildID, l.attempt)
	if err != nil {
		return err
	}
	slices.SortStableFunc(begun, func(a, b *schedulerv1.Step) int { return cmp.Compare(a.GetLogOffset(), b.GetLogOffset()) })
	for _, step := range begun {
		l.steps = append(l.steps, &schedulerv1.LogStep{Number: step.GetNumber(), FirstLine: l.index.FirstLine(step.GetLogOffset())})
		l.offsets = append(l.offsets, step.GetLogOffset())
	}
	return nil
}

// stepOf is the step that a line is of; nil for those before the first.
func (l lines) stepOf(line logs.Line) *schedulerv1.LogStep {
	at := sort.Search(len(l.offsets), func(n int) bool { return l.offsets[n] > line.Offset })
	if at == 0 {
		return nil
	}
	return l.steps[at-1]
}

// GetLog says where things are in a log.
func (s *logService) GetLog(ctx context.Context, req *schedulerv1.GetLogRequest) (*schedulerv1.GetLogResponse, error) {
	l, err := s.open(ctx, req.GetBuildId(), req.GetAttempt())
	if err != nil {
		return nil, err
	}
	log := &schedulerv1.Log{Attempt: l.attempt, Size: l.index.Size(), LineCount: l.index.LineCount(), Over: l.over, Steps: l.steps}
	for n, step := range log.GetSteps() {
		end := log.GetLineCount() + 1
		if n+1 < len(log.GetSteps()) {
			end = log.GetSteps()[n+1].GetFirstLine()
		}
		step.LineCount = max(0, end-step.GetFirstLine())
	}
	for _, mark := range l.index.Marks(logMarks) {
		log.Marks = append(log.Marks, &schedulerv1.LogMark{Line: mark.Line, Level: schedulerv1.LogLine_Level(mark.Level)}) //nolint:gosec // 0 to 2
	}
	return &schedulerv1.GetLogResponse{Log: log}, nil
}

// ReadLog sends lines.
func (s *logService) ReadLog(req *schedulerv1.ReadLogRequest, stream schedulerv1.LogService_ReadLogServer) error {
	ctx := stream.Context()
	switch {
	case req.GetLine() < 0 || req.GetOffset() < 0 || req.GetPageSize() < 0:
		return fault.New(fault.Invalid, "lines count from 1, offsets from 0")
	case req.GetLine() > 0 && req.GetOffset() > 0:
		return fault.New(fault.Invalid, "begin at a line or at an offset, not both")
	}
	if req.GetFollow() {
		return s.follow(ctx, req, stream)
	}
	l, err := s.open(ctx, req.GetBuildId(), req.GetAttempt())
	if err != nil {
		return err
	}
	if count := l.index.LineCount(); req.GetLine() > max(count, 1) || req.GetOffset() > l.index.Size() {
		return status.Error(codes.OutOfRange, fmt.Sprintf("the log has %d lines in %d bytes", count, l.index.Size()))
	}
	b := &batch{stream: stream, lines: l, left: cmp.Or(int64(req.GetPageSize()), logLines)}
	for line, err := range l.from(req.GetLine(), req.GetOffset()) {
		if err != nil {
			return err
		}
		if more, err := b.add(line); err != nil || !more {
			return errors.Join(err, b.send())
		}
	}
	return b.send()
}

// from are the lines from a line or an offset on.
func (l lines) from(line, offset int64) iter.Seq2[logs.Line, error] {
	if line > 0 && l.index.Size() > 0 {
		return logs.Lines(l.read, l.index, line)
	}
	return logs.LinesFrom(l.read, l.index, offset)
}

// batch collects lines for a message.
type batch struct {
	stream schedulerv1.LogService_ReadLogServer
	lines  lines
	left   int64 // how many lines there may still be
	follow bool
	next   *schedulerv1.ReadLogResponse
	size   int
	sent   bool
}

// add takes a line; more is whether there may be another.
func (b *batch) add(line logs.Line) (more bool, err error) {
	if b.next != nil && (len(b.next.GetLines()) == logLines || b.size >= logBytes || line.Step) {
		if err := b.send(); err != nil {
			return false, err
		}
	}
	if b.next == nil {
		b.next, b.size = &schedulerv1.ReadLogResponse{Style: line.Style}, 0
	}
	sent := &schedulerv1.LogLine{
		Number: line.Number, Offset: line.Offset, Size: line.Size, Text: line.Text, Tail: line.Tail,
		Open: line.Open && !b.lines.over, Level: schedulerv1.LogLine_Level(line.Level), //nolint:gosec // 0 to 2
	}
	sent.StepLine = line.Number
	if step := b.lines.stepOf(line); step != nil {
		sent.Step, sent.StepLine = step.GetNumber(), line.Number-step.GetFirstLine()+1
	}
	if !line.Time.IsZero() {
		sent.Time = timestamppb.New(line.Time)
	}
	b.next.Lines = append(b.next.Lines, sent)
	b.size += len(line.Text) + len(line.Tail) + 64
	b.left--
	return b.left > 0 || b.follow, nil
}

// send sends what there is; the first message goes in any case.
func (b *batch) send() error {
	if b.next == nil && b.sent {
		return nil
	}
	if b.next == nil {
		b.next = &schedulerv1.ReadLogResponse{}
	}
	b.next.LineCount, b.next.Over = b.lines.index.LineCount(), b.lines.over
	err := b.stream.Send(b.next)
	b.next, b.sent = nil, true
	return err
}
