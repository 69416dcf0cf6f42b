package traces

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/otlp"
)

// Intake takes spans by OTLP. Whoever serves it sees to who may send them.
type Intake struct {
	collectorv1.UnimplementedTraceServiceServer
	Store *Store
}

// Export keeps spans, and says how many of them are none.
func (i Intake) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	answer := &collectorv1.ExportTraceServiceResponse{}
	for _, resource := range request.GetResourceSpans() {
		service := otlp.Service(resource.GetResource())
		for _, scope := range resource.GetScopeSpans() {
			spans := make([]Span, 0, len(scope.GetSpans()))
			for _, s := range scope.GetSpans() {
				spans = append(spans, received(service, s))
			}
			if invalid := i.Store.Add(spans); invalid > 0 {
				answer.PartialSuccess = &collectorv1.ExportTracePartialSuccess{
					RejectedSpans: answer.GetPartialSuccess().GetRejectedSpans() + int64(invalid), ErrorMessage: "a trace's id has 16 bytes, a span's 8, and not all are zero",
				}
			}
		}
	}
	return answer, nil
}

// ServeHTTP is Export over HTTP, as protobuf.
func (i Intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const kind = "application/x-protobuf"
	if given, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || given != kind || r.Header.Get("Content-Encoding") != "" {
		http.Error(w, "send "+kind+", not compressed", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostSent))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		err = tooLarge()
	}
	var request *collectorv1.ExportTraceServiceRequest
	if err == nil {
		request, err = decode(body)
	}
	if err != nil {
		code := http.StatusBadRequest
		if fault.Is(err, fault.Exhausted) {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), code)
		return
	}
	answer, err := i.Export(r.Context(), request)
	if err == nil {
		body, err = proto.Marshal(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // a sender who left is no error
}

// received is a span as it was sent. An id of another length is none.
func received(service string, s *tracev1.Span) Span {
	kept := Span{
		Name: s.GetName(), Service: service, Kind: strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")),
		Start: nanos(s.GetStartTimeUnixNano()), End: nanos(s.GetEndTimeUnixNano()),
		Failed: s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR, Message: s.GetStatus().GetMessage(),
	}
	if len(s.GetTraceId()) == len(kept.Trace) {
		copy(kept.Trace[:], s.GetTraceId())
	}
	if len(s.GetSpanId()) == len(kept.ID) {
		copy(kept.ID[:], s.GetSpanId())
	}
	if len(s.GetParentSpanId()) == len(kept.Parent) {
		copy(kept.Parent[:], s.GetParentSpanId())
	}
	if kept.Kind == "internal" || kept.Kind == "unspecified" {
		kept.Kind = ""
	}
	for _, a := range s.GetAttributes()[:min(len(s.GetAttributes()), mostAttributes)] {
		kept.Attributes = append(kept.Attributes, Attribute{a.GetKey(), otlp.Text(a.GetValue())})
	}
	return kept
}

// nanos is a time of OTLP; one beyond what int64 holds is as late as can be.
func nanos(t uint64) time.Time {
	const latest = 1 << 62
	return time.Unix(0, int64(min(t, latest)))
}

// ExportSpans keeps the spans of this process: a Store is an exporter of the SDK's.
func (s *Store) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	all := make([]Span, 0, len(spans))
	for _, span := range spans {
		kept := Span{
			Trace: span.SpanContext().TraceID(), ID: span.SpanContext().SpanID(), Parent: span.Parent().SpanID(), Name: span.Name(),
			Start: span.StartTime(), End: span.EndTime(), Failed: span.Status().Code.String() == "Error", Message: span.Status().Description,
		}
		if kind := span.SpanKind(); kind != trace.SpanKindInternal && kind != trace.SpanKindUnspecified {
			kept.Kind = kind.String()
		}
		for _, a := range span.Resource().Attributes() {
			if a.Key == "service.name" {
				kept.Service = a.Value.String()
			}
		}
		for _, a := range span.Attributes() {
			kept.Attributes = append(kept.Attributes, Attribute{string(a.Key), a.Value.String()})
		}
		all = append(all, kept)
	}
	s.Add(all)
	return nil
}

// Shutdown does nothing: what is kept goes with its process.
func (*Store) Shutdown(context.Context) error { return nil }
