// Package otlp reads what OpenTelemetry's protocol sends, for who keeps spans. What is sent
// may be anything.
package otlp

import (
	"encoding/hex"
	"fmt"
	"strconv"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
)

// mostBytes is how much of a value that is no text is shown.
const mostBytes = 1000

// Service is what a sender calls itself; "": it does not say.
func Service(resource *resourcev1.Resource) (name string) {
	for _, a := range resource.GetAttributes() {
		if a.GetKey() == "service.name" {
			name = a.GetValue().GetStringValue()
		}
	}
	return name
}

// Text is a value as people read it. Lists and maps are not looked into: they may nest as
// deep as their sender likes.
func Text(v *commonv1.AnyValue) string {
	switch of := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return of.StringValue
	case *commonv1.AnyValue_BoolValue:
		return strconv.FormatBool(of.BoolValue)
	case *commonv1.AnyValue_IntValue:
		return strconv.FormatInt(of.IntValue, 10)
	case *commonv1.AnyValue_DoubleValue:
		return strconv.FormatFloat(of.DoubleValue, 'g', -1, 64)
	case *commonv1.AnyValue_BytesValue:
		return hex.EncodeToString(of.BytesValue[:min(len(of.BytesValue), mostBytes)])
	case *commonv1.AnyValue_ArrayValue:
		return fmt.Sprintf("a list of %d", len(of.ArrayValue.GetValues()))
	case *commonv1.AnyValue_KvlistValue:
		return fmt.Sprintf("a map of %d", len(of.KvlistValue.GetValues()))
	default:
		return ""
	}
}
