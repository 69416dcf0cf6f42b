// Package traceparent derives the W3C traceparent of a span from its parent's, so that two
// processes that never speak of it give the same span the same id.
package traceparent

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Below is the traceparent of the span of this name below parent; "" where parent is none.
func Below(parent, name string) string {
	parts := strings.Split(parent, "-")
	if len(parts) != 4 || len(parts[1]) != 32 || len(parts[2]) != 16 {
		return ""
	}
	sum := sha256.Sum256([]byte(parent + "\n" + name))
	parts[2] = hex.EncodeToString(sum[:8])
	return strings.Join(parts, "-")
}

// SpanID is the id of the span that a traceparent names, 16 hexadecimal digits; "" where
// it is none.
func SpanID(parent string) string {
	parts := strings.Split(parent, "-")
	if len(parts) != 4 || len(parts[2]) != 16 {
		return ""
	}
	return parts[2]
}
