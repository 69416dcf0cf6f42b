// Package wording holds the words that all rooms have for what the contract speaks of, so that a commit, a state or a
// decision reads the same wherever people meet it.
package wording

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Short is a sha as people read it: its first seven digits.
func Short(sha string) string { return sha[:min(7, len(sha))] }

// Approve is the comment that lets a fork's commit run.
func Approve(sha string) string { return "/forge approve " + sha[:min(12, len(sha))] }

// FullName is how GitHub writes a repository: owner/name.
func FullName(r *eventv1.Repository) string { return r.GetOwner() + "/" + r.GetName() }

// Value is the value of an enum as people say it: "timed out" for STATE_TIMED_OUT. A value that this Forge does not know is
// its number.
func Value(value protoreflect.Enum) string {
	values := value.Descriptor().Values()
	known := values.ByNumber(value.Number())
	if known == nil {
		return fmt.Sprint(value.Number())
	}
	// The style of protobuf gives each enum a prefix, which its zero value shows.
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(known.Name()), prefix)), "_", " ")
}

// Waits says of a reason for which builds and jobs wait what that is; false: none waits for it.
func Waits(reason schedulerv1.Build_Reason) (text string, waits bool) {
	text, waits = map[schedulerv1.Build_Reason]string{
		schedulerv1.Build_REASON_ENVIRONMENT_BUSY:      "another build has its environment",
		schedulerv1.Build_REASON_ENVIRONMENT_FROZEN:    "its environment is frozen",
		schedulerv1.Build_REASON_NEEDS_APPROVAL:        "nobody has approved it",
		schedulerv1.Build_REASON_ENGINE_UNAVAILABLE:    "the engine does not answer",
		schedulerv1.Build_REASON_NEEDS:                 "what it needs has not ended",
		schedulerv1.Build_REASON_CONCURRENCY:           "the one before it of its concurrency group has not ended",
		schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL: "nobody has let it go",
		schedulerv1.Build_REASON_DEPLOYS_AFTER:         "its commit is not deployed yet where it has to be before",
		schedulerv1.Build_REASON_CAPACITY:              "as many builds run as may at once",
		schedulerv1.Build_REASON_IMAGE_PULL:            "its image is being pulled",
		schedulerv1.Build_REASON_MACHINE:               "no machine has taken it yet",
		schedulerv1.Build_REASON_RETRY:                 "it could not be started yet, and is tried again",
		schedulerv1.Build_REASON_SOURCE:                "its source is being fetched",
		schedulerv1.Build_REASON_DISK:                  "there is no disk space for it",
	}[reason]
	return text, waits
}

// Because is why a build or a job is in its state: its message, or else what it waits for; empty where the state says all.
func Because(of interface {
	GetState() schedulerv1.Build_State
	GetReason() schedulerv1.Build_Reason
	GetMessage() string
},
) string {
	if of.GetMessage() != "" || of.GetState() >= schedulerv1.Build_STATE_PASSED {
		return of.GetMessage()
	}
	text, _ := Waits(of.GetReason())
	return text
}

// Count is a number of things, as in "1 job" and "2 jobs", for nouns whose plural ends in s.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Line is where in the queue something stands.
func Line(l *schedulerv1.Line) string {
	switch l.GetPlace() {
	case 0:
		return "over a thousand are in the queue"
	case 1:
		return "next in the queue"
	}
	return fmt.Sprintf("%s before it in the queue, %d at once", Count(int(l.GetPlace())-1, "other"), l.GetCapacity())
}

// Noted is the decision about an event that changed what a room knows, and started nothing.
func Noted(format string, args ...any) *eventv1.Decision {
	return &eventv1.Decision{Reason: eventv1.Reason_REASON_NOTED, Text: fmt.Sprintf(format, args...)}
}

// Ignored is the decision about an event that asks for nothing here. The text says which part of it made that so.
func Ignored(reason eventv1.Reason, format string, args ...any) *eventv1.Decision {
	return &eventv1.Decision{Reason: reason, Text: "ignored: " + fmt.Sprintf(format, args...)}
}

// ActionIgnored is the decision about an event whose action asks for nothing here.
func ActionIgnored(event *eventv1.Event) *eventv1.Decision {
	return Ignored(eventv1.Reason_REASON_ACTION_IGNORED, "action %s", event.GetAction())
}
