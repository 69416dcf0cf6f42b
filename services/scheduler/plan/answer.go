package plan

import (
	"fmt"
	"slices"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// HelpText is what the help says below a comment. No line of it is a command, or
// Forge would take its own words for one.
const HelpText = "People with write access to the repository steer the tests of this pull request by a comment " +
	"with one of these on a line of its own:\n\n" +
	"- `/forge retest` tests the head again, and `/forge retest failed` only its jobs that did not pass\n" +
	"- `/forge cancel` cancels what is queued or runs\n" +
	"- `/forge approve <sha>` lets that commit of a fork run; the whole sha or at least 12 digits of it, as the status of the commit shows the line, and it must be the head\n" +
	"- `/forge deploy <environment>` lets what this pull request was merged as go to that environment, where it waits for somebody to say so\n" +
	"- `/forge help` says this"

// reply is how a comment is answered. Where the reaction says it all, or the
// build's status does, nothing is said below the comment.
type reply struct {
	reaction reporterv1.AnswerRequest_Reaction
	says     func(*eventv1.Decision) string
}

// replyTo looks up how a decision about a command is answered.
func replyTo(d *eventv1.Decision) reply {
	nothing := func(*eventv1.Decision) string { return "" }
	why := func(d *eventv1.Decision) string {
		return "Nothing done: " + strings.TrimPrefix(d.GetText(), "ignored: ") + "."
	}
	r, listed := map[eventv1.Reason]reply{
		eventv1.Reason_REASON_BUILT:          {reporterv1.AnswerRequest_REACTION_SEEN, nothing},
		eventv1.Reason_REASON_BLOCKED:        {reporterv1.AnswerRequest_REACTION_SEEN, nothing},
		eventv1.Reason_REASON_CANCELLED:      {reporterv1.AnswerRequest_REACTION_DONE, nothing},
		eventv1.Reason_REASON_APPROVED:       {reporterv1.AnswerRequest_REACTION_DONE, nothing},
		eventv1.Reason_REASON_INVALID_CONFIG: {reporterv1.AnswerRequest_REACTION_CONFUSED, nothing},
		eventv1.Reason_REASON_ANSWERED:       {reporterv1.AnswerRequest_REACTION_DONE, func(*eventv1.Decision) string { return HelpText }},
		eventv1.Reason_REASON_NOT_ALLOWED:    {reporterv1.AnswerRequest_REACTION_REFUSED, why},
	}[d.GetReason()]
	if !listed {
		r = reply{reporterv1.AnswerRequest_REACTION_CONFUSED, why}
	}
	return r
}

// answerTo is how the comment of an event is answered, given what was decided of
// each of its commands, or of the comment as a whole; nil for what asks for nothing.
// A bot gets no answer: two of them would talk for ever.
func (s *Service) answerTo(event *eventv1.Event, commands []trigger.Command, more bool, all ...*eventv1.Decision) *reporterv1.AnswerRequest {
	comment := event.GetIssueComment()
	asked, _ := trigger.Commands(comment.GetBody())
	if len(asked) == 0 || !comment.GetOnPullRequest() || comment.GetCommentId() == 0 || comment.GetAuthor().GetType() == eventv1.Account_TYPE_BOT {
		return nil
	}
	var reaction reporterv1.AnswerRequest_Reaction
	var texts []string
	for n, d := range all {
		r := replyTo(d)
		reaction = max(reaction, r.reaction) // they are in the order of how much they matter
		text := r.says(d)
		if n < len(commands) {
			text = sayOf(commands, n, text, s.commandReaders()[commands[n].Name] != nil)
		}
		for _, id := range d.GetBuildIds() {
			text = strings.ReplaceAll(text, id, "["+id+"]("+s.BuildURL(id)+")")
		}
		if text != "" && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if more {
		reaction = max(reaction, reporterv1.AnswerRequest_REACTION_CONFUSED)
		texts = append(texts, fmt.Sprintf("Of one comment the first %d commands are carried out.", trigger.MostCommands))
	}
	return &reporterv1.AnswerRequest{
		Repository: event.GetRepository(), InstallationId: event.GetInstallationId(),
		CommentId: comment.GetCommentId(), PullRequest: comment.GetNumber(), Reaction: reaction, Text: strings.Join(texts, "\n\n"),
	}
}

// sayOf is what is said of one of several commands, which it names where there are
// others. What anybody wrote is not repeated in Forge's name.
func sayOf(commands []trigger.Command, n int, text string, known bool) string {
	name := commands[n].Name
	switch {
	case !known:
		return "There is no such command. " + HelpText
	case text == "" || name == "help" || len(commands) == 1:
		return text
	}
	return "`/forge " + name + "`: " + text
}
