package trigger

import (
	"fmt"
	"regexp"
	"strings"
)

// skipWord is what people write into a message so that nothing is built of it.
// https://docs.github.com/actions/how-tos/manage-workflow-runs/skip-workflow-runs
var skipWord = regexp.MustCompile(`(?i)\[(?:skip ci|ci skip|no ci|skip actions|actions skip|skip forge|forge skip)\]`)

// skipTrailer is the same as a trailer, the last paragraph's.
var skipTrailer = regexp.MustCompile(`(?im)^skip-checks: *true *$`)

// SkipWord is the word of a commit's message, or a title, that asks for nothing to
// be built; "" where there is none.
func SkipWord(message string) string {
	if word := skipWord.FindString(message); word != "" {
		return word
	}
	paragraphs := strings.Split(strings.TrimSpace(strings.ReplaceAll(message, "\r\n", "\n")), "\n\n")
	if len(paragraphs) < 2 {
		return ""
	}
	return strings.TrimSpace(skipTrailer.FindString(paragraphs[len(paragraphs)-1]))
}

// SkipAsked says where an event asks for nothing to be built; "" where it does not.
// What was merged is deployed, a tag is built, and so is what a person asks for.
func (i Intent) SkipAsked() string {
	where, text := "", ""
	switch {
	case i.Kind == Pushed && strings.HasPrefix(i.Ref, BranchRef):
		where, text = "the commit's message", i.Event.GetPush().GetHeadMessage()
	case i.Kind == PullRequestOffered && SkipWord(i.Pull.GetTitle()) != "":
		where, text = "the title", i.Pull.GetTitle()
	case i.Kind == PullRequestOffered:
		where, text = "the head commit's message", i.Message
	}
	if word := SkipWord(text); word != "" {
		return fmt.Sprintf("%s says %s", where, word)
	}
	return ""
}
