package traces_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/gateway/traces"
)

// at is the time of the tests.
func at() time.Time { return time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC) }

func store(bytes int64) (s *traces.Store, later func(time.Duration)) {
	now := at()
	return traces.New(traces.Config{Bytes: bytes, Age: time.Hour, Now: func() time.Time { return now }}), func(d time.Duration) { now = now.Add(d) }
}

func traceID(n int) (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func spanID(n int) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

func span(of, id int) traces.Span {
	return traces.Span{Trace: traceID(of), ID: spanID(id), Name: "plan", Start: at(), End: at().Add(time.Second)}
}

func TestTracesAreKeptForTheirAge(t *testing.T) {
	s, later := store(1 << 20)
	s.Add([]traces.Span{span(1, 1)})
	later(50 * time.Minute)
	s.Add([]traces.Span{span(1, 2), span(2, 1)})
	later(50 * time.Minute)
	if got, found := s.Trace(traceID(1)); !found || len(got.Spans) != 2 {
		t.Errorf("a trace that goes on: %v, %v", got, found)
	}
	later(11 * time.Minute)
	if got, found := s.Trace(traceID(1)); found {
		t.Errorf("an old trace: %v", got)
	}
}

// However many spans come, of however many traces, they take no more than there is.
func TestSpansAreBounded(t *testing.T) {
	const most = 1 << 20
	s, _ := store(most)
	for n := 1; n <= 1_000_000; n += 1000 { // a million of one trace
		batch := make([]traces.Span, 1000)
		for i := range batch {
			batch[i] = span(1, n+i)
		}
		s.Add(batch)
	}
	got, found := s.Trace(traceID(1))
	if !found || len(got.Spans) > 5000 || len(got.Spans)+got.Left != 1_000_000 {
		t.Errorf("%d spans of one trace are kept, %d left out", len(got.Spans), got.Left)
	}
	long := strings.Repeat("x", 900)
	for n := 2; n < 5000; n++ { // and many traces: the oldest go
		one := span(n, 1)
		one.Message = long
		s.Add([]traces.Span{one})
	}
	if _, found := s.Trace(traceID(1)); found {
		t.Error("the oldest is still there")
	}
	kept := 0
	for n := range 5000 {
		if got, found := s.Trace(traceID(n)); found {
			kept += len(got.Spans) * len(long)
		}
	}
	if kept == 0 || kept > most {
		t.Errorf("%d bytes are kept, at most %d", kept, most)
	}
	if _, found := s.Trace(traceID(4999)); !found {
		t.Error("the newest is gone")
	}
}

func TestWithoutRoomNothingIsKept(t *testing.T) {
	s, _ := store(0)
	s.Add([]traces.Span{span(1, 1)})
	if _, found := s.Trace(traceID(1)); found {
		t.Error("it is kept")
	}
}

// Whoever comes later cannot rewrite what a span has said.
func TestASpanIsNotReplaced(t *testing.T) {
	s, _ := store(1 << 20)
	forged := span(1, 1)
	forged.Name = "forged"
	s.Add([]traces.Span{span(1, 1)})
	s.Add([]traces.Span{forged})
	if got, _ := s.Trace(traceID(1)); len(got.Spans) != 1 || got.Spans[0].Name != "plan" {
		t.Errorf("%v", got)
	}
}

// What comes over the wire may be anything.
func TestHostileSpansAreCutToSize(t *testing.T) {
	s, _ := store(1 << 24)
	id, parent := traceID(1), spanID(7)
	huge := strings.Repeat("\xff<script>", 1<<17)
	nested := &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: "deep"}}
	for range 50 {
		nested = &commonv1.AnyValue{Value: &commonv1.AnyValue_ArrayValue{ArrayValue: &commonv1.ArrayValue{Values: []*commonv1.AnyValue{nested}}}}
	}
	attributes := []*commonv1.KeyValue{{Key: huge, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: huge}}}, {Key: "nested", Value: nested}, {Key: "none"}}
	for n := range 10_000 {
		attributes = append(attributes, &commonv1.KeyValue{Key: strconv.Itoa(n)})
	}
	answer, err := traces.Intake{Store: s}.Export(t.Context(), &collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{
		{TraceId: id[:], SpanId: []byte{1, 2, 3}, Name: "a short id"},
		{TraceId: id[:4], SpanId: parent[:], Name: "a short trace"},
		{TraceId: make([]byte, 16), SpanId: parent[:], Name: "zeros"},
		{Name: "nothing"},
		{
			TraceId: id[:], SpanId: parent[:], ParentSpanId: []byte{1}, Name: huge, Attributes: attributes, Kind: 99,
			StartTimeUnixNano: math.MaxUint64, EndTimeUnixNano: 1, Status: &tracev1.Status{Code: tracev1.Status_STATUS_CODE_ERROR, Message: huge},
		},
	}}}}}})
	if err != nil || answer.GetPartialSuccess().GetRejectedSpans() != 4 {
		t.Errorf("%v, %v", answer, err)
	}
	got, found := s.Trace(id)
	if !found || len(got.Spans) != 1 {
		t.Fatalf("%v, %v", got, found)
	}
	kept := got.Spans[0]
	if len(kept.Name) > 1000 || len(kept.Message) > 4000 || len(kept.Attributes) > 48 || kept.Parent.IsValid() {
		t.Errorf("it is kept with %d attributes: %v", len(kept.Attributes), kept)
	}
	for _, text := range []string{kept.Name, kept.Message, kept.Attributes[0].Key, kept.Attributes[0].Value} {
		if !utf8.ValidString(text) || len(text) > 4000 {
			t.Errorf("%d bytes are kept: %.80q", len(text), text)
		}
	}
	if kept.Start.After(at().Add(time.Hour)) || kept.End.Before(kept.Start) {
		t.Errorf("from %v to %v", kept.Start, kept.End)
	}
}

func TestSpansComeOverHTTP(t *testing.T) {
	s, _ := store(1 << 20)
	id, one := traceID(1), spanID(1)
	body, err := proto.Marshal(&collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{
		{TraceId: id[:], SpanId: one[:], Name: "go test", Kind: tracev1.Span_SPAN_KIND_INTERNAL},
	}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body           []byte
		kind, encoding string
		want           int
	}{
		"JSON":       {[]byte(`{}`), "application/json", "", http.StatusUnsupportedMediaType},
		"compressed": {body, "application/x-protobuf", "gzip", http.StatusUnsupportedMediaType},
		"rubbish":    {[]byte("\xff\xff"), "application/x-protobuf", "", http.StatusBadRequest},
		"too much":   {make([]byte, 9<<20), "application/x-protobuf", "", http.StatusRequestEntityTooLarge},
		"spans":      {body, "application/x-protobuf", "", http.StatusOK},
	} {
		request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/traces", bytes.NewReader(c.body))
		request.Header.Set("Content-Type", c.kind)
		request.Header.Set("Content-Encoding", c.encoding)
		answer := httptest.NewRecorder()
		traces.Intake{Store: s}.ServeHTTP(answer, request)
		if answer.Code != c.want {
			t.Errorf("%s: %d %s, want %d", name, answer.Code, answer.Body, c.want)
		}
	}
	if got, found := s.Trace(id); !found || got.Spans[0].Name != "go test" || got.Spans[0].Kind != "" {
		t.Errorf("%v, %v", got, found)
	}
}
