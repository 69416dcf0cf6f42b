package web

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// scale is the time that the bars of one page share: from the creation of a build to
// its end, or to now.
type scale struct{ start, end time.Time }

func scaleOf(b *schedulerv1.Build, now time.Time) scale {
	return scale{b.GetCreateTime().AsTime(), timeOr(b.GetEndTime(), now)}
}

// bar is a timeline to scale.
type bar []segment

// segment is a part of a bar. Its place is in percent of the whole, as the attributes
// of an SVG have it.
type segment struct {
	Kind     string // its class: waiting, starting, source, ready, or step or ran and its state
	Text     string // what it is, and how long it took
	X, Width string
}

// way is what a build and a job have in common: how they got to their commands.
type way interface {
	GetPlaceTime() *timestamppb.Timestamp
	GetContainerTime() *timestamppb.Timestamp
	GetSourceTime() *timestamppb.Timestamp
	GetStartTime() *timestamppb.Timestamp
	GetEndTime() *timestamppb.Timestamp
}

// bar is that of a build without jobs, or of a job, whose steps are not known: then
// what came after the first command is one segment.
func (s scale) bar(of way, state string, steps []*schedulerv1.Step) bar {
	phases := []struct {
		kind, text string
		end        *timestamppb.Timestamp
	}{
		{"waiting", "waited", of.GetPlaceTime()},
		{"starting", "started a container", of.GetContainerTime()},
		{"source", "fetched the source", of.GetSourceTime()},
		{"ready", "made caches and services ready", of.GetStartTime()},
	}
	var line bar
	at, end := s.start, timeOr(of.GetEndTime(), s.end)
	known := 0 // phases that are over; one that was not told of belongs to the next
	for n, phase := range phases {
		if phase.end != nil {
			line.add(s, phase.kind, phase.text, at, phase.end.AsTime())
			at, known = phase.end.AsTime(), n+1
		}
	}
	switch {
	case known < len(phases):
		line.add(s, phases[known].kind, phases[known].text, at, end)
	case len(steps) == 0:
		line.add(s, "ran "+state, state, at, end)
	}
	for _, step := range steps {
		if step.GetStartTime() != nil {
			line.add(s, "step "+wording.Value(step.GetState()), cmp.Or(step.GetName(), step.GetRun()), step.GetStartTime().AsTime(), timeOr(step.GetEndTime(), end))
		}
	}
	return line
}

// add puts a segment on the bar where it is wide enough to be seen. Clocks of
// containers may differ from the server's: a segment never leaves the bar.
func (b *bar) add(s scale, kind, text string, start, end time.Time) {
	whole := s.end.Sub(s.start).Seconds()
	if whole <= 0 {
		return
	}
	from, to := min(max(start.Sub(s.start).Seconds()/whole, 0), 1), min(max(end.Sub(s.start).Seconds()/whole, 0), 1)
	if to-from > 0.0005 {
		*b = append(*b, segment{
			Kind: kind, Text: text + ", " + took(end.Sub(start)), X: fmt.Sprintf("%.2f%%", 100*from), Width: fmt.Sprintf("%.2f%%", 100*(to-from)),
		})
	}
}

func timeOr(t *timestamppb.Timestamp, other time.Time) time.Time {
	if t == nil {
		return other
	}
	return t.AsTime()
}
