// Package traces keeps the spans of the last hours in memory, within a bound, for whoever
// wants to see where the time of a build went and has set up nothing. A span may be
// anybody's: whatever it says is cut to size, and never believed.
package traces

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Bounds of what one span and one trace take.
const (
	mostName       = 200
	mostKey        = 100
	mostValue      = 1000
	mostAttributes = 48
	mostSpans      = 5000 // of one trace
	overhead       = 256  // bytes that a span takes besides its texts
	mostAhead      = time.Minute
)

// Span is a span as it is shown.
type Span struct {
	Trace      trace.TraceID
	ID, Parent trace.SpanID
	Name       string
	Service    string
	Kind       string // server, client, producer, consumer; "": internal
	Failed     bool
	Message    string // why it has
	Start, End time.Time
	Attributes []Attribute
}

// Attribute is what a span says of itself.
type Attribute struct{ Key, Value string }

// Attribute is the value of an attribute; "": it has none.
func (s Span) Attribute(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}

// Trace is what is kept of one.
type Trace struct {
	Spans []Span
	// Left is how many spans were left out, since there were too many.
	Left int
}

// Config bounds what is kept.
type Config struct {
	Bytes int64         // of all traces; 0: nothing is kept
	Age   time.Duration // since a trace got its last span
	Now   func() time.Time
}

// Store keeps spans. What got its last span longest ago goes first.
type Store struct {
	cfg Config

	mu     sync.Mutex
	known  map[trace.TraceID]*list.Element
	recent *list.List // of *kept, the last one to get a span first
	bytes  int64
}

type kept struct {
	id      trace.TraceID
	spans   map[trace.SpanID]Span
	left    int
	bytes   int64
	touched time.Time
}

// New returns an empty store.
func New(cfg Config) *Store {
	return &Store{cfg: cfg, known: map[trace.TraceID]*list.Element{}, recent: list.New()}
}

// Add keeps spans, as far as there is room, and returns how many have no valid ids. Of two
// with one id the first counts: whoever comes later cannot rewrite it.
func (s *Store) Add(spans []Span) (invalid int) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range spans {
		if !span.Trace.IsValid() || !span.ID.IsValid() {
			invalid++
			continue
		}
		if s.cfg.Bytes <= 0 {
			continue
		}
		bound(&span, now, s.cfg.Age)
		of := s.touch(span.Trace, now)
		if _, known := of.spans[span.ID]; known {
			continue
		}
		size := sizeOf(span)
		if len(of.spans) >= mostSpans || of.bytes+size > s.cfg.Bytes/4 {
			of.left++
			continue
		}
		of.spans[span.ID] = span
		of.bytes += size
		s.bytes += size
	}
	s.forget(now)
	return invalid
}

// touch is the trace that a span belongs to, as the most recent one.
func (s *Store) touch(id trace.TraceID, now time.Time) *kept {
	element, known := s.known[id]
	if !known {
		element = s.recent.PushFront(&kept{id: id, spans: map[trace.SpanID]Span{}, bytes: overhead})
		s.known[id] = element
		s.bytes += overhead
	}
	s.recent.MoveToFront(element)
	of, _ := element.Value.(*kept)
	of.touched = now
	return of
}

// forget drops what is too old, or too much.
func (s *Store) forget(now time.Time) {
	for last := s.recent.Back(); last != nil; last = s.recent.Back() {
		of, _ := last.Value.(*kept)
		if s.bytes <= s.cfg.Bytes && now.Sub(of.touched) <= s.cfg.Age {
			return
		}
		s.recent.Remove(last)
		delete(s.known, of.id)
		s.bytes -= of.bytes
	}
}

// Trace returns what is kept of a trace, in no order.
func (s *Store) Trace(id trace.TraceID) (t Trace, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(s.cfg.Now())
	element, found := s.known[id]
	if !found {
		return Trace{}, false
	}
	of, _ := element.Value.(*kept)
	t.Left = of.left
	for _, span := range of.spans {
		t.Spans = append(t.Spans, span)
	}
	return t, true
}

// bound cuts a span to size. Its times lie between what is kept and now: one from the
// future, or from 1970, would leave the others no room on the scale.
func bound(s *Span, now time.Time, age time.Duration) {
	s.Name, s.Service, s.Message, s.Kind = cut(s.Name, mostName), cut(s.Service, mostName), cut(s.Message, mostValue), cut(s.Kind, mostName)
	s.Attributes = s.Attributes[:min(len(s.Attributes), mostAttributes)]
	for n, a := range s.Attributes {
		s.Attributes[n] = Attribute{cut(a.Key, mostKey), cut(a.Value, mostValue)}
	}
	earliest, latest := now.Add(-age), now.Add(mostAhead)
	within := func(t time.Time) time.Time {
		switch {
		case t.Before(earliest):
			return earliest
		case t.After(latest):
			return latest
		default:
			return t
		}
	}
	s.Start, s.End = within(s.Start), within(s.End)
	if s.End.Before(s.Start) {
		s.End = s.Start
	}
}

// cut is the beginning of a text that may hold anything, as text. It is a copy, so that
// what it was a part of is not kept.
func cut(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(strings.Clone(text), "\uFFFD")
}

func sizeOf(s Span) int64 {
	size := overhead + len(s.Name) + len(s.Service) + len(s.Kind) + len(s.Message)
	for _, a := range s.Attributes {
		size += 32 + len(a.Key) + len(a.Value)
	}
	return int64(size)
}
