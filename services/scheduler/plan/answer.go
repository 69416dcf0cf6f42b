package plan

import (
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
)

// HelpText is what the help says below a comment. No line of it is a command, or
// Forge would take its own words for one.
const HelpText = "People with write access to the repository steer the tests of this pull request by a comment " +
	"with one of these on a line of its own:\n\n" +
	"- `/forge retest` tests the head again\n" +
	"- `/forge cancel` cancels what is queued or runs\n" +
	"- `/forge approve <sha>` lets that commit of a fork run; the whole sha or at least 12 digits of it, as the status of the commit shows the line, and it must be the head\n" +
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

// answerTo is how the comment of an event is answered; nil for what asks for
// nothing. A bot gets no answer: two of them would talk for ever.
func (s *Service) answerTo(event *eventv1.Event, d *eventv1.Decision) *reporterv1.AnswerRequest {
	comment := event.GetIssueComment()
	name, _, ok := Command(comment.GetBody())
	if !ok || !comment.GetOnPullRequest() || comment.GetCommentId() == 0 || comment.GetAuthor().GetType() == eventv1.Account_TYPE_BOT {
		return nil
	}
	r := replyTo(d)
	text := r.says(d)
	if s.commandReaders()[name] == nil { // what anybody wrote is not repeated in Forge's name
		text = "There is no such command. " + HelpText
	}
	for _, id := range d.GetBuildIds() {
		text = strings.ReplaceAll(text, id, "["+id+"]("+s.BuildURL(id)+")")
	}
	return &reporterv1.AnswerRequest{
		Repository: event.GetRepository(), InstallationId: event.GetInstallationId(),
		CommentId: comment.GetCommentId(), PullRequest: comment.GetNumber(), Reaction: r.reaction, Text: text,
	}
}
