package forgexec

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/mask"
	"github.com/forge-ci/forge/services/kit/otlp"
	"github.com/forge-ci/forge/services/kit/traceparent"
)

// Bounds of what the tools of an attempt may tell.
const (
	mostSpansSent    = 1 << 20   // bytes of one request, unpacked
	mostSpansKept    = 1 << 20   // bytes of an attempt's spans, as they are reported
	mostSpansReport  = 120 << 10 // bytes of spans in one report
	mostSpanName     = 200
	mostSpanValue    = 1000
	mostSpanKeys     = 48
	spanPatience     = 10 * time.Second // for a request to come
	endpointEnv      = "OTEL_EXPORTER_OTLP_ENDPOINT"
	protocolEnv      = "OTEL_EXPORTER_OTLP_PROTOCOL"
	protobufOverHTTP = "application/x-protobuf"
	jsonOverHTTP     = "application/json"
)

// spanIntake takes the spans that the tools of commands send by OTLP over HTTP. Nobody
// outside reaches its address, and where builds share one, as processes of the host do,
// nobody guesses its path. A nil one takes none.
type spanIntake struct {
	endpoint string
	trace    []byte           // the attempt's own
	steps    map[string]int32 // numbers of steps, by the ids of their spans
	masker   *mask.Masker
	server   *http.Server
	serving  sync.WaitGroup

	mu      sync.Mutex // one request is read at a time: what it unpacks to is large
	closed  bool
	step    int32 // that runs
	left    int32 // how many spans there is room for
	bytes   int   // of those that were kept
	waiting []*schedulerv1.ToolSpan
	foreign int32
	leftOut int32
}

// takeSpans listens for spans where somebody keeps them, unless the build's own variables
// have its tools send them elsewhere. A container where it cannot listen goes without.
func (r *runner) takeSpans(ctx context.Context, plan *schedulerv1.Plan) *spanIntake {
	parent := plan.GetEnvironment()["TRACEPARENT"]
	if plan.GetSpanLimit() <= 0 || traceparent.SpanID(parent) == "" {
		return nil
	}
	for _, set := range []map[string]string{r.environ, plan.GetEnvironment(), plan.GetSecrets()} {
		for _, name := range []string{endpointEnv, protocolEnv, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
			if set[name] != "" {
				return nil
			}
		}
	}
	id, err := hex.DecodeString(strings.Split(parent, "-")[1])
	if err != nil {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil
	}
	path := fmt.Sprintf("/%x", randomID())
	s := &spanIntake{
		endpoint: "http://" + listener.Addr().String() + path, trace: id, steps: map[string]int32{},
		masker: r.masker, left: plan.GetSpanLimit(),
	}
	for _, step := range plan.GetSteps() {
		s.steps[traceparent.SpanID(ofStep(parent, step.GetNumber()))] = step.GetNumber()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path+"/v1/traces", s.take)
	// Tools send these to the same address, and complain where nobody takes them.
	for _, other := range []string{"/v1/metrics", "/v1/logs"} {
		mux.HandleFunc("POST "+path+other, func(w http.ResponseWriter, r *http.Request) { taken(w, r.Header.Get("Content-Type")) })
	}
	s.server = &http.Server{Handler: mux, ReadTimeout: spanPatience, WriteTimeout: spanPatience, MaxHeaderBytes: 64 << 10}
	s.serving.Go(func() { _ = s.server.Serve(listener) })
	return s
}

// variables tell the tools of commands where to send spans. No step sets others for those
// that follow it.
func (s *spanIntake) variables() map[string]string {
	if s == nil {
		return nil
	}
	return map[string]string{endpointEnv: s.endpoint, protocolEnv: "http/protobuf"}
}

// begin has spans that name no parent be those of this step.
func (s *spanIntake) begin(step int32) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = step
}

// close ends the intake.
func (s *spanIntake) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.server.Close()
	s.serving.Wait()
}

// flush reports what has come.
func (s *spanIntake) flush(report func(*schedulerv1.Report)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	waiting, last := s.waiting, &schedulerv1.ToolSpans{Foreign: s.foreign, LeftOut: s.leftOut}
	s.waiting, s.foreign, s.leftOut = nil, 0, 0
	s.mu.Unlock()
	say := func(spans *schedulerv1.ToolSpans) {
		report(&schedulerv1.Report{Event: &schedulerv1.Report_Spans{Spans: spans}})
	}
	size := 0
	for _, span := range waiting {
		if next := proto.Size(span); len(last.GetSpans()) > 0 && size+next > mostSpansReport {
			say(&schedulerv1.ToolSpans{Spans: last.GetSpans()})
			last.Spans, size = nil, 0
		}
		last.Spans = append(last.Spans, span)
		size += proto.Size(span)
	}
	if len(last.GetSpans()) > 0 || last.GetForeign() > 0 || last.GetLeftOut() > 0 {
		say(last)
	}
}

// take is an ExportTraceServiceRequest, which is on the wire what TracesData is.
func (s *spanIntake) take(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != protobufOverHTTP && kind != jsonOverHTTP {
		http.Error(w, "send "+protobufOverHTTP+" or "+jsonOverHTTP, http.StatusUnsupportedMediaType)
		return
	}
	data, err := unpacked(http.MaxBytesReader(w, r.Body, mostSpansSent), r.Header.Get("Content-Encoding"))
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := &tracev1.TracesData{}
	switch {
	case err != nil:
	case kind == jsonOverHTTP:
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, sent)
	default:
		err = proto.Unmarshal(data, sent)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("this is no ExportTraceServiceRequest of at most %d bytes: %v", mostSpansSent, err), http.StatusBadRequest)
		return
	}
	for _, resource := range sent.GetResourceSpans() {
		tool := otlp.Service(resource.GetResource())
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				if kind == jsonOverHTTP {
					span.TraceId, span.SpanId, span.ParentSpanId = ofDigits(span.GetTraceId()), ofDigits(span.GetSpanId()), ofDigits(span.GetParentSpanId())
				}
				s.keep(tool, span)
			}
		}
	}
	taken(w, kind)
}

// taken says in OTLP's words that all is well: what is left out, a tool cannot mend.
func taken(w http.ResponseWriter, kind string) {
	w.Header().Set("Content-Type", kind)
	if strings.HasPrefix(kind, jsonOverHTTP) {
		_, _ = io.WriteString(w, "{}")
	}
}

// unpacked is the body of a request.
func unpacked(body io.Reader, encoding string) ([]byte, error) {
	switch encoding {
	case "", "identity":
		return io.ReadAll(body)
	case "gzip":
		zip, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(zip, mostSpansSent+1))
		if err == nil && len(data) > mostSpansSent {
			err = io.ErrShortBuffer
		}
		return data, err
	default:
		return nil, fmt.Errorf("the encoding %q is unknown: use gzip or none", clip(encoding))
	}
}

// ofDigits is an id of OTLP's JSON. It has hexadecimal digits there, where protobuf's JSON
// has base64; read as that, it is bytes whose base64 are the digits.
func ofDigits(read []byte) []byte {
	id, err := hex.DecodeString(base64.StdEncoding.EncodeToString(read))
	if err != nil {
		return nil
	}
	return id
}

// keep keeps a span for the next report.
func (s *spanIntake) keep(tool string, of *tracev1.Span) {
	if !bytes.Equal(of.GetTraceId(), s.trace) {
		s.foreign++
		return
	}
	if len(of.GetSpanId()) != 8 || s.left == 0 || s.closed {
		s.leftOut++
		return
	}
	text := func(text string, most int) string { return cut(s.masker.String(text), most) }
	span := &schedulerv1.ToolSpan{
		Id: of.GetSpanId(), Name: text(of.GetName(), mostSpanName), Kind: roleOf(of.GetKind()),
		StartTime: ofNanos(of.GetStartTimeUnixNano()), EndTime: ofNanos(of.GetEndTimeUnixNano()),
		Failed: of.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR, Message: text(of.GetStatus().GetMessage(), mostSpanValue),
		Tool: text(tool, mostSpanName), Attributes: map[string]string{},
	}
	number, isStep := s.steps[hex.EncodeToString(of.GetParentSpanId())]
	switch {
	case isStep:
		span.Parent = &schedulerv1.ToolSpan_Step{Step: number}
	case len(of.GetParentSpanId()) == 8:
		span.Parent = &schedulerv1.ToolSpan_Span{Span: of.GetParentSpanId()}
	default:
		span.Parent = &schedulerv1.ToolSpan_Step{Step: s.step}
	}
	for _, a := range of.GetAttributes()[:min(len(of.GetAttributes()), mostSpanKeys)] {
		span.Attributes[text(a.GetKey(), mostSpanName)] = text(otlp.Text(a.GetValue()), mostSpanValue)
	}
	size := proto.Size(span)
	if s.bytes+size > mostSpansKept {
		s.leftOut++
		return
	}
	s.bytes += size
	s.left--
	s.waiting = append(s.waiting, span)
}

// roleOf is the kind of a span, where it says more than that it is within a tool.
func roleOf(kind tracev1.Span_SpanKind) schedulerv1.ToolSpan_SpanKind {
	return map[tracev1.Span_SpanKind]schedulerv1.ToolSpan_SpanKind{
		tracev1.Span_SPAN_KIND_SERVER:   schedulerv1.ToolSpan_SPAN_KIND_SERVER,
		tracev1.Span_SPAN_KIND_CLIENT:   schedulerv1.ToolSpan_SPAN_KIND_CLIENT,
		tracev1.Span_SPAN_KIND_PRODUCER: schedulerv1.ToolSpan_SPAN_KIND_PRODUCER,
		tracev1.Span_SPAN_KIND_CONSUMER: schedulerv1.ToolSpan_SPAN_KIND_CONSUMER,
	}[kind]
}

// ofNanos is a time of OTLP; one beyond what int64 holds is as late as can be.
func ofNanos(t uint64) *timestamppb.Timestamp {
	const latest = 1 << 62
	return timestamppb.New(time.Unix(0, int64(min(t, latest))))
}

// cut is the beginning of a text, without half a letter at its end.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
