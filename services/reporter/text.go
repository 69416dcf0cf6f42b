package reporter

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/terminal"
	"github.com/forge-ci/forge/services/wording"
)

// maxDescription is how many characters GitHub takes as a status's description.
const maxDescription = 140

// placed says what a build waits for that has its place, but not how far that is.
func placed(b *schedulerv1.Build) string {
	text, _ := wording.Waits(b.GetReason())
	return join(": ", "Running", text)
}

func because(text string) func(*schedulerv1.Build) string {
	return func(b *schedulerv1.Build) string { return join(": ", text, wording.Because(b)) }
}

// saying is the build's message, which says all; or else a text.
func saying(otherwise string) func(*schedulerv1.Build) string {
	return func(b *schedulerv1.Build) string { return capital(cmp.Or(b.GetMessage(), otherwise)) }
}

func needsApproval(b *schedulerv1.Build) string {
	if b.GetEnvironment() != "" {
		return capital(cmp.Or(b.GetMessage(), "needs approval"))
	}
	return "Needs approval: comes from a fork, comment " + wording.Approve(b.GetSha())
}

func passed(b *schedulerv1.Build) string {
	count := wording.Count(int(cmp.Or(b.GetStepCount(), int32(len(b.GetSteps())))), "step") //nolint:gosec // 500 at most
	if jobs := int(b.GetJobCount()); jobs > 0 {
		count = join("; ", wording.Count(jobs, "job"), b.GetMessage())
	}
	return join(", ", join(" in ", "Passed", took(b)), count)
}

func failed(b *schedulerv1.Build) string {
	switch b.GetReason() {
	case schedulerv1.Build_REASON_OUT_OF_MEMORY, schedulerv1.Build_REASON_OUT_OF_DISK:
	default:
		for _, step := range b.GetSteps() {
			if step.GetState() == schedulerv1.Step_STATE_FAILED {
				return failedStep(step)
			}
		}
	}
	return join(": ", "Failed", b.GetMessage())
}

// failedStep shortens the name, so that what follows it is always there.
func failedStep(step *schedulerv1.Step) string {
	before := fmt.Sprintf(`Step %d "`, step.GetNumber())
	after := join(" after ", fmt.Sprintf(`" failed (exit %d)`, step.GetExitCode()), took(step))
	left := maxDescription - utf8.RuneCountInString(before) - utf8.RuneCountInString(after)
	return before + cut(oneLine(step.GetName()), left) + after
}

// errored leads in where the message alone would not say what went wrong.
func errored(b *schedulerv1.Build) string {
	leads := map[schedulerv1.Build_Reason]string{
		schedulerv1.Build_REASON_START_FAILED: "Could not start",
		schedulerv1.Build_REASON_NOT_RUNNABLE: "Could not run",
		schedulerv1.Build_REASON_LOST:         "Lost",
	}
	if lead := leads[b.GetReason()]; lead != "" {
		return join(": ", lead, b.GetMessage())
	}
	return cmp.Or(capital(b.GetMessage()), "Errored")
}

func cancelled(b *schedulerv1.Build) string {
	switch b.GetReason() {
	case schedulerv1.Build_REASON_SUPERSEDED:
		return cmp.Or(capital(b.GetMessage()), "Superseded")
	case schedulerv1.Build_REASON_ALREADY_CONTAINED:
		return cmp.Or(capital(b.GetMessage()), "Already contained")
	default:
		return join(": ", "Cancelled", b.GetMessage())
	}
}

func timedOut(b *schedulerv1.Build) string { return join(" after ", "Timed out", took(b)) }

// timed is a build or a step.
type timed interface {
	GetStartTime() *timestamppb.Timestamp
	GetEndTime() *timestamppb.Timestamp
}

// took is how long something took, "" where that is not known.
func took(what timed) string {
	if what.GetStartTime() == nil || what.GetEndTime() == nil {
		return ""
	}
	return length(what.GetEndTime().AsTime().Sub(what.GetStartTime().AsTime()))
}

// length is a duration as people say it: 87ms, 1.3s, 34s, 1m 12s, 2h 5m.
func length(d time.Duration) string {
	d = max(d, 0)
	if d < time.Second {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	if tenths := d.Round(time.Second / 10); tenths < 10*time.Second {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", tenths.Seconds()), ".0") + "s"
	}
	d = d.Round(time.Second)
	hours, minutes, seconds := d/time.Hour, d/time.Minute%60, d/time.Second%60
	var parts []string
	if hours > 0 {
		parts = append(parts, fmt.Sprintf("%dh", hours))
	}
	if minutes > 0 {
		parts = append(parts, fmt.Sprintf("%dm", minutes))
	}
	if seconds > 0 && hours == 0 {
		parts = append(parts, fmt.Sprintf("%ds", seconds))
	}
	return strings.Join(parts, " ")
}

func join(separator, text, more string) string {
	if more == "" {
		return text
	}
	return text + separator + more
}

func capital(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + text[size:]
}

// turns reports whether a character makes others run the other way, by which a
// text can be made to read as another one.
func turns(r rune) bool {
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// oneLine has no line ends and nothing that a database or a page trips over.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r):
			return ' '
		case turns(r):
			return -1
		}
		return r
	}, terminal.Strip(strings.ToValidUTF8(text, "")))
	return strings.Join(strings.Fields(text), " ")
}

// printable has line ends and tabs, and no other control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || turns(r) {
			return -1
		}
		return r
	}, terminal.Strip(strings.ToValidUTF8(text, "")))
}

// cut bounds the characters of text. What is too long ends between words, where
// there are any, and with an ellipsis.
func cut(text string, most int) string {
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	end := most - 1
	for end > most/2 && joined(runes, end) {
		end--
	}
	for at := end; at > most/2; at-- { // a word longer than that, or a script without spaces, is cut within
		if runes[at] == ' ' {
			end = at
			break
		}
	}
	return strings.TrimRight(string(runes[:end]), " ,;:") + "…"
}

// basicPlane has no character beyond U+FFFF: what is drawn as one with such a
// character, as the members of a family, is replaced together.
func basicPlane(text string) string {
	runes := []rune(text)
	var basic strings.Builder
	replaced := false
	for at, r := range runes {
		if replaced && joined(runes, at) {
			continue
		}
		if replaced = r > maxBasic; replaced {
			r = '□'
		}
		basic.WriteRune(r)
	}
	return basic.String()
}

// maxBasic is the last character of Unicode's basic plane.
const maxBasic = '\uffff'

const zeroWidthJoiner = '\u200d'

// joined reports whether a character is drawn as one with that before: an
// accent, a skin colour, the members of a family, the halves of a flag.
func joined(runes []rune, at int) bool {
	r := runes[at]
	halves := at
	for halves > 0 && isHalfFlag(r) && isHalfFlag(runes[halves-1]) {
		halves--
	}
	return unicode.Is(unicode.M, r) || r >= '\U0001F3FB' && r <= '\U0001F3FF' ||
		runes[at-1] == zeroWidthJoiner || r == zeroWidthJoiner || (at-halves)%2 == 1
}

func isHalfFlag(r rune) bool { return r >= '\U0001F1E6' && r <= '\U0001F1FF' }
