package attempt

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/engine"
	"github.com/forge-ci/forge/services/scheduler/environment"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// maxWaitEvents bounds what one start tells of its waits in its span.
const maxWaitEvents = 100

// waits is what a start waits for now, and has waited for.
type waits struct {
	now func() time.Time

	mu     sync.Mutex
	reason schedulerv1.Build_Reason
	text   string
	since  time.Time
	over   []waited
}

// waited is a wait that is over.
type waited struct {
	reason     schedulerv1.Build_Reason
	text       string // for people; may be empty
	start, end time.Time
}

// event tells of a wait in a span.
func (w waited) event(span trace.Span) {
	attributes := []attribute.KeyValue{
		attribute.String("forge.reason", wording.Value(w.reason)), attribute.Float64("forge.duration", w.end.Sub(w.start).Seconds()),
	}
	if w.text != "" {
		attributes = append(attributes, attribute.String("forge.waits_for", w.text))
	}
	span.AddEvent("waits", trace.WithTimestamp(w.start), trace.WithAttributes(attributes...))
}

// note is told what it waits for now. Another text is no other wait.
func (w *waits) note(reason schedulerv1.Build_Reason, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reason == w.reason {
		w.text = text
		return
	}
	now := w.now()
	if w.reason != schedulerv1.Build_REASON_UNSPECIFIED && len(w.over) < maxWaitEvents {
		w.over = append(w.over, waited{w.reason, w.text, w.since, now})
	}
	w.reason, w.text, w.since = reason, text, now
}

// why is what it waits for now, for programs and for people.
func (w *waits) why() (schedulerv1.Build_Reason, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason, w.text
}

// end tells of all waits of a start that is over in its span.
func (w *waits) end(span trace.Span) {
	w.note(schedulerv1.Build_REASON_UNSPECIFIED, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.over {
		one.event(span)
	}
}

// reasonOf is what an engine waits for in the words of builds.
func reasonOf(what engine.Wait) schedulerv1.Build_Reason {
	return map[engine.Wait]schedulerv1.Build_Reason{
		engine.WaitImage: schedulerv1.Build_REASON_IMAGE_PULL, engine.WaitMachine: schedulerv1.Build_REASON_MACHINE,
		engine.WaitDisk: schedulerv1.Build_REASON_DISK, engine.WaitRetry: schedulerv1.Build_REASON_RETRY,
	}[what]
}

// awaitMerge has the commits merged that a build tests so.
func awaitMerge(ctx context.Context, sources configv1.SourceServiceClient, c Start) error {
	if c.Build.GetIntoSha() == "" {
		return nil
	}
	c.waits.note(schedulerv1.Build_REASON_SOURCE, "")
	defer c.waits.note(schedulerv1.Build_REASON_UNSPECIFIED, "")
	_, err := merge(ctx, sources, c.Build)
	return err
}

// unstarted is why a build is queued again whose start had no clear answer.
func unstarted(answer error) (schedulerv1.Build_Reason, string) {
	switch {
	case strings.Contains(answer.Error(), "no space left on device"):
		return schedulerv1.Build_REASON_DISK, answer.Error()
	case is[unmergedError](answer):
		return schedulerv1.Build_REASON_SOURCE, answer.Error()
	case is[environment.CannotCompareError](answer):
		return schedulerv1.Build_REASON_RETRY, answer.Error()
	}
	return schedulerv1.Build_REASON_ENGINE_UNAVAILABLE, "the engine does not answer: " + answer.Error()
}

// queueSpan records that a build was queued, since then at the latest, and what it has
// waited for before it could be placed.
func queueSpan(ctx context.Context, s *Service, b *store.Build, since time.Time, all []*schedulerv1.Wait) {
	of := over{parent: b.Traceparent, name: "wait in queue", start: since, end: s.now(), attributes: attributesOf(b)}
	for _, one := range all {
		start := one.GetStartTime().AsTime()
		of.waits = append(of.waits, waited{reason: one.GetReason(), start: start, end: one.GetEndTime().AsTime()})
		if of.start.IsZero() || start.Before(of.start) {
			of.start = start
		}
	}
	if !of.start.IsZero() {
		s.span(ctx, of)
	}
}
