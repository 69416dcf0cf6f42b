package traces

import (
	"context"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/forge-ci/forge/services/kit/fault"
)

// Bounds of one message. Two bytes of it can become a hundred in memory, so that what it
// holds is counted before it is decoded.
const (
	mostSent     = 8 << 20 // in bytes
	mostElements = 500_000 // spans, attributes, values and whatever else it holds
	mostNested   = 1000
)

// Register serves Export by gRPC. A message is decoded once it is known who sends it, and
// that it is not too much.
func (i Intake) Register(reg grpc.ServiceRegistrar) {
	desc := collectorv1.TraceService_ServiceDesc
	desc.Methods = []grpc.MethodDesc{{MethodName: "Export", Handler: i.handle}}
	reg.RegisterService(&desc, i)
}

func (i Intake) handle(_ any, ctx context.Context, decodeInto func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC has the context second
	raw := &emptypb.Empty{} // which keeps what it does not know as it came
	if err := decodeInto(raw); err != nil {
		return nil, err
	}
	export := func(ctx context.Context, _ any) (any, error) {
		request, err := decode(raw.ProtoReflect().GetUnknown())
		if err != nil {
			return nil, err
		}
		return i.Export(ctx, request)
	}
	if intercept == nil {
		return export(ctx, raw)
	}
	return intercept(ctx, raw, &grpc.UnaryServerInfo{Server: i, FullMethod: collectorv1.TraceService_Export_FullMethodName}, export)
}

func tooLarge() error {
	return fault.Newf(fault.Exhausted, "a message of spans has %d bytes at most: send fewer at once", mostSent)
}

// decode reads a message. It is Exhausted where that is too much, and Invalid where it is
// none.
func decode(body []byte) (*collectorv1.ExportTraceServiceRequest, error) {
	if len(body) > mostSent {
		return nil, tooLarge()
	}
	request, left := &collectorv1.ExportTraceServiceRequest{}, mostElements
	if err := count(body, request.ProtoReflect().Descriptor(), &left, mostNested); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(body, request); err != nil {
		return nil, noMessage()
	}
	return request, nil
}

func noMessage() error {
	return fault.New(fault.Invalid, "this is no ExportTraceServiceRequest")
}

// count takes from left what a message holds, and all within it. It allocates nothing.
func count(body []byte, of protoreflect.MessageDescriptor, left *int, depth int) error {
	if depth == 0 {
		return fault.Newf(fault.Exhausted, "a message of spans nests %d deep at most", mostNested)
	}
	for len(body) > 0 {
		number, kind, size := protowire.ConsumeTag(body)
		if size < 0 {
			return noMessage()
		}
		body = body[size:]
		if size = protowire.ConsumeFieldValue(number, kind, body); size < 0 {
			return noMessage()
		}
		value := body[:size]
		body = body[size:]
		field := of.Fields().ByNumber(number)
		if field == nil || kind != protowire.BytesType || field.Message() == nil && !field.IsList() {
			continue
		}
		if *left--; *left < 0 {
			return fault.Newf(fault.Exhausted, "a message of spans holds %d spans, attributes and values at most: send fewer at once", mostElements)
		}
		if field.Message() == nil {
			continue
		}
		inner, _ := protowire.ConsumeBytes(value)
		if err := count(inner, field.Message(), left, depth-1); err != nil {
			return err
		}
	}
	return nil
}
