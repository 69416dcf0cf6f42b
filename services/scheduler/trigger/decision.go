package trigger

import (
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// Malformed is the decision about an event that does not fit its kind.
func Malformed(what string) *eventv1.Decision {
	return &eventv1.Decision{Reason: eventv1.Reason_REASON_MALFORMED, Text: "malformed: " + what}
}

func firstLine(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return strings.TrimSpace(line)
}
