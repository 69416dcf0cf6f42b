package scheduler

import (
	"context"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/telemetry"
)

// helpText is what the help says below a comment. No line of it is a command, or
// Forge would take its own words for one.
const helpText = "People with write access to the repository steer the tests of this pull request by a comment " +
	"with one of these on a line of its own:\n\n" +
	"- `/forge retest` tests the head again\n" +
	"- `/forge cancel` cancels what is queued or runs\n" +
	"- `/forge approve <sha>` lets that commit of a fork run; at least 7 digits, and it must be the head\n" +
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
		eventv1.Reason_REASON_ANSWERED:       {reporterv1.AnswerRequest_REACTION_DONE, func(*eventv1.Decision) string { return helpText }},
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
	name, _, ok := command(comment.GetBody())
	if !ok || !comment.GetOnPullRequest() || comment.GetCommentId() == 0 || comment.GetAuthor().GetType() == eventv1.Account_TYPE_BOT {
		return nil
	}
	r := replyTo(d)
	text := r.says(d)
	if s.readers()[name] == nil { // what anybody wrote is not repeated in Forge's name
		text = "There is no such command. " + helpText
	}
	for _, id := range d.GetBuildIds() {
		text = strings.ReplaceAll(text, id, "["+id+"]("+s.buildURL(id)+")")
	}
	return &reporterv1.AnswerRequest{
		Repository: event.GetRepository(), InstallationId: event.GetInstallationId(),
		CommentId: comment.GetCommentId(), PullRequest: comment.GetNumber(), Reaction: r.reaction, Text: text,
	}
}

// answer asks the reporter to answer a comment.
func (s *Service) answer(ctx context.Context, c answer) {
	ctx = telemetry.WithTraceparent(ctx, c.traceparent)
	call, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := s.reporter.Answer(call, c.request)
	again := s.again(ctx, c.tries, err, "answer", c.comment)
	err = s.write(ctx, func(ctx context.Context, t *tx) error { return t.settleAnswer(ctx, c, again, c.tries+1) })
	if err != nil {
		s.Log.WarnContext(ctx, "answer not settled; asked for again when its lease is over", "error", err)
	}
}
