package scheduler

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// commands is what comments can ask for, as the help says it.
const commands = "/forge retest, /forge cancel, /forge approve <sha>, /forge help"

// A command stands alone on a line. What is quoted or indented is not one.
var (
	commandLine = regexp.MustCompile(`(?mi)^/forge(?:[ \t]+(\S+))?(?:[ \t]+(\S+))?[ \t]*\r?$`)
	anyShaStart = regexp.MustCompile(`^[0-9a-f]{7,64}$`)
)

// command is the first in a comment; ok where there is one.
func command(body string) (name, argument string, ok bool) {
	match := commandLine.FindStringSubmatch(body)
	if match == nil {
		return "", "", false
	}
	return strings.ToLower(match[1]), strings.ToLower(match[2]), true
}

// readers read what each command asks for, given what follows its name.
func (s *Service) readers() map[string]func(context.Context, *eventv1.Event, string) (intent, *eventv1.Decision, error) {
	return map[string]func(context.Context, *eventv1.Event, string) (intent, *eventv1.Decision, error){
		"retest": s.intendRetest, "cancel": s.intendCancel, "approve": s.intendApproval, "help": help,
	}
}

// intendComment reads a comment on a pull request. Who wrote it is asked for at
// GitHub, and so is the pull request: the comment names only its number.
func (s *Service) intendComment(ctx context.Context, event *eventv1.Event) (intent, *eventv1.Decision, error) {
	comment := event.GetIssueComment()
	name, argument, ok := command(comment.GetBody())
	switch {
	case event.GetRepository().GetId() == 0 || comment.GetNumber() == 0:
		return intent{}, malformed("an issue_comment without a repository or a number"), nil
	case !comment.GetOnPullRequest():
		return intent{}, ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is not on a pull request"), nil
	case !ok:
		return intent{}, ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is no command"), nil
	case s.BuildRetention > 0 && comment.GetCreateTime() != nil && s.Now().Sub(comment.GetCreateTime().AsTime()) >= s.BuildRetention:
		// Whether it was carried out at the time is not known any more.
		return intent{}, ignored(eventv1.Reason_REASON_STALE, "the comment is older than what is kept here"), nil
	}
	read := s.readers()[name]
	if read == nil {
		return intent{}, ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "/forge %s is no command: there are %s", name, commands), nil
	}
	if decided, err := s.mustWrite(ctx, event, comment.GetAuthor()); decided != nil || err != nil {
		return intent{}, decided, err
	}
	return read(ctx, event, argument)
}

// mustWrite is a decision about who has no write access.
func (s *Service) mustWrite(ctx context.Context, event *eventv1.Event, who *eventv1.Account) (*eventv1.Decision, error) {
	if may, err := s.mayWrite(ctx, event, who); may || err != nil {
		return nil, err
	}
	return ignored(eventv1.Reason_REASON_NOT_ALLOWED, "%s has no write access to %s/%s",
		who.GetLogin(), event.GetRepository().GetOwner(), event.GetRepository().GetName()), nil
}

func help(context.Context, *eventv1.Event, string) (intent, *eventv1.Decision, error) {
	return intent{}, &eventv1.Decision{Reason: eventv1.Reason_REASON_ANSWERED, Text: "help: " + commands}, nil
}

func (s *Service) intendCancel(_ context.Context, event *eventv1.Event, _ string) (intent, *eventv1.Decision, error) {
	return intent{event: event, moment: halted, pull: &eventv1.PullRequest{Number: event.GetIssueComment().GetNumber()}}, nil, nil
}

func (s *Service) intendRetest(ctx context.Context, event *eventv1.Event, _ string) (intent, *eventv1.Decision, error) {
	pull, decided, err := s.openPull(ctx, event)
	if decided != nil || err != nil {
		return intent{}, decided, err
	}
	i, decided := s.aim(intent{event: event, pull: pull, moment: asked})
	return i, decided, nil
}

// intendApproval holds the sha against the head: what is approved is what whoever
// writes has seen, never what was pushed since.
func (s *Service) intendApproval(ctx context.Context, event *eventv1.Event, sha string) (intent, *eventv1.Decision, error) {
	if !anyShaStart.MatchString(sha) {
		return intent{}, ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "name what is approved: /forge approve and at least 7 digits of the head's sha"), nil
	}
	pull, decided, err := s.openPull(ctx, event)
	if decided != nil || err != nil {
		return intent{}, decided, err
	}
	i, decided := s.aim(intent{event: event, pull: pull, moment: asked})
	i.moment = approved
	switch {
	case decided != nil:
		return i, decided, nil
	case !strings.HasPrefix(i.sha, sha):
		return i, ignored(eventv1.Reason_REASON_STALE, "the head of #%d is %s, not %s", pull.GetNumber(), short(i.sha), sha), nil
	default:
		return i, s.needsApproval(i.fork, fmt.Sprintf("#%d", pull.GetNumber())), nil
	}
}

// needsApproval is nil where there is something to approve.
func (s *Service) needsApproval(fork bool, what string) *eventv1.Decision {
	switch {
	case !fork:
		return ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "%s is not from a fork and needs no approval", what)
	case s.ForkPolicy == forkRun:
		return ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "pull requests from forks need no approval here")
	default:
		return s.forkDecision(fork)
	}
}

// openPull is the pull request of a comment, as GitHub has it now.
func (s *Service) openPull(ctx context.Context, event *eventv1.Event) (*eventv1.PullRequest, *eventv1.Decision, error) {
	pull, err := s.pullRequest(ctx, event, event.GetIssueComment().GetNumber())
	if err == nil && !pull.GetOpen() {
		return nil, ignored(eventv1.Reason_REASON_GONE, "#%d is closed", pull.GetNumber()), nil
	}
	return pull, nil, err
}
