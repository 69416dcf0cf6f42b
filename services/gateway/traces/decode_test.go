package traces_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/gateway/traces"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// intake is a client of one that takes messages of 32 MiB, as the gateway's server does.
func intake(t *testing.T, s *traces.Store) collectorv1.TraceServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(32<<20), grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		answer, err := handle(ctx, req)
		return answer, rpc.Remote(err, "gateway")
	}))
	traces.Intake{Store: s}.Register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); <-done })
	return collectorv1.NewTraceServiceClient(conn)
}

// sent is a message of one span with attributes.
func sent(attributes ...*commonv1.KeyValue) *collectorv1.ExportTraceServiceRequest {
	id, one := traceID(1), spanID(1)
	return &collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{
		{TraceId: id[:], SpanId: one[:], Name: "go test", Attributes: attributes},
	}}}}}}
}

func value(text string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: text}}
}

// listOf is a value with as many empty ones in it.
func listOf(n int) *commonv1.AnyValue {
	all := &commonv1.ArrayValue{}
	for range n {
		all.Values = append(all.Values, &commonv1.AnyValue{})
	}
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_ArrayValue{ArrayValue: all}}
}

// nested is a message that is a list in a list, and so on.
func nested(depth int) []byte {
	inner := []byte{}
	for range depth {
		list := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
		inner = protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), list)
	}
	wrap := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	return wrap(1, wrap(2, wrap(2, wrap(9, wrap(2, inner)))))
}

// hostile are messages that would take much more memory than they are long.
func hostile(t *testing.T) map[string][]byte {
	t.Helper()
	wire := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	many := make([]*commonv1.KeyValue, 1_000_000)
	for n := range many {
		many[n] = &commonv1.KeyValue{}
	}
	spans := &tracev1.ScopeSpans{}
	for range 600_000 {
		spans.Spans = append(spans.Spans, &tracev1.Span{})
	}
	return map[string][]byte{
		"a large text":         wire(sent(&commonv1.KeyValue{Key: "large", Value: value(strings.Repeat("x", 9<<20))})),
		"a million attributes": wire(sent(many...)),
		"a million values":     wire(sent(&commonv1.KeyValue{Key: "list", Value: listOf(1_000_000)})),
		"many spans":           wire(&collectorv1.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{spans}}}}),
		"deep":                 nested(20_000),
	}
}

// What is too much is refused before it takes memory, with a text that says the bound.
func TestHostileMessagesAreRefused(t *testing.T) {
	s, _ := store(1 << 20)
	client := intake(t, s)
	all := hostile(t)
	for name, body := range all {
		request := &collectorv1.ExportTraceServiceRequest{}
		request.ProtoReflect().SetUnknown(body) // goes out as it is
		_, err := client.Export(t.Context(), request)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s by gRPC: %v", name, err)
		}
		var before, after runtime.MemStats
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/traces", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/x-protobuf")
		answer := httptest.NewRecorder()
		runtime.ReadMemStats(&before)
		traces.Intake{Store: s}.ServeHTTP(answer, r)
		runtime.ReadMemStats(&after)
		if answer.Code != http.StatusRequestEntityTooLarge || !strings.Contains(answer.Body.String(), "at most") {
			t.Errorf("%s over HTTP: %d %s", name, answer.Code, answer.Body)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 { // what reads it grows, and copies
			t.Errorf("%s, %d bytes, took %d", name, len(body), took)
		}
	}
	if _, found := s.Trace(traceID(1)); found {
		t.Error("a part of it is kept")
	}
	if _, err := client.Export(t.Context(), sent(&commonv1.KeyValue{Key: "a", Value: value("b")}, &commonv1.KeyValue{Key: "list", Value: listOf(100_000)})); err != nil {
		t.Errorf("what is not too much: %v", err)
	}
	if got, _ := s.Trace(traceID(1)); len(got.Spans) != 1 || got.Spans[0].Attribute("a") != "b" || got.Spans[0].Attribute("list") != "a list of 100000" {
		t.Errorf("%v", got)
	}
	rubbish := &collectorv1.ExportTraceServiceRequest{}
	rubbish.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("\xff\xff")))
	if _, err := client.Export(t.Context(), rubbish); status.Code(err) != codes.InvalidArgument {
		t.Errorf("rubbish: %v", err)
	}
}

// Whatever is taken is what protobuf reads, and what protobuf reads is taken or too much.
func FuzzMessages(f *testing.F) {
	for _, m := range []*collectorv1.ExportTraceServiceRequest{sent(), sent(&commonv1.KeyValue{Key: "a", Value: listOf(3)})} {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add(nested(5))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, _ := store(1 << 20)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/traces", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/x-protobuf")
		answer := httptest.NewRecorder()
		traces.Intake{Store: s}.ServeHTTP(answer, r)
		read := proto.Unmarshal(body, &collectorv1.ExportTraceServiceRequest{}) == nil
		switch {
		case answer.Code == http.StatusOK && !read, answer.Code == http.StatusBadRequest && read:
			t.Errorf("%d for what protobuf reads: %v", answer.Code, read)
		case answer.Code != http.StatusOK && answer.Code != http.StatusBadRequest && answer.Code != http.StatusRequestEntityTooLarge:
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
	})
}
