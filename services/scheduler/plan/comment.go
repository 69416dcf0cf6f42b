package plan

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// Commands is what comments can ask for, as the help says it.
const Commands = "/forge retest, /forge cancel, /forge approve <sha>, /forge help"

// A command stands alone on a line. What is quoted or indented is not one.
var (
	commandLine = regexp.MustCompile(`(?mi)^/forge(?:[ \t]+(\S+))?(?:[ \t]+(\S+))?[ \t]*\r?$`)
	// A commit whose sha begins with fewer digits of another's is made in minutes.
	anyShaStart = regexp.MustCompile(`^[0-9a-f]{12,64}$`)
)

// Command is the first in a comment; ok where there is one.
func Command(body string) (name, argument string, ok bool) {
	match := commandLine.FindStringSubmatch(body)
	if match == nil {
		return "", "", false
	}
	return strings.ToLower(match[1]), strings.ToLower(match[2]), true
}

// commandReaders read what each command asks for, given what follows its name.
func (s *Service) commandReaders() map[string]func(context.Context, *eventv1.Event, string) (trigger.Intent, *eventv1.Decision, error) {
	return map[string]func(context.Context, *eventv1.Event, string) (trigger.Intent, *eventv1.Decision, error){
		"retest": s.readRetest, "cancel": s.readCancel, "approve": s.readApproval, "help": help,
	}
}

// readComment reads a comment on a pull request. Who wrote it is asked for at
// GitHub, and so is the pull request: the comment names only its number.
func (s *Service) readComment(ctx context.Context, event *eventv1.Event) ([]trigger.Intent, *eventv1.Decision, error) {
	i, decided, err := s.readCommand(ctx, event)
	return []trigger.Intent{i}, decided, err
}

func (s *Service) readCommand(ctx context.Context, event *eventv1.Event) (trigger.Intent, *eventv1.Decision, error) {
	comment := event.GetIssueComment()
	name, argument, ok := Command(comment.GetBody())
	switch {
	case event.GetRepository().GetId() == 0 || comment.GetNumber() == 0:
		return trigger.Intent{}, trigger.Malformed("an issue_comment without a repository or a number"), nil
	case !comment.GetOnPullRequest():
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is not on a pull request"), nil
	case !ok:
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is no command"), nil
	case s.remembered > 0 && comment.GetCreateTime() != nil && s.now().Sub(comment.GetCreateTime().AsTime()) >= s.remembered:
		// Whether it was carried out at the time is not known any more.
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_STALE, "the comment is older than what is kept here"), nil
	}
	read := s.commandReaders()[name]
	if read == nil {
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "/forge %s is no command: there are %s", name, Commands), nil
	}
	if decided, err := s.mustWrite(ctx, event, comment.GetAuthor()); decided != nil || err != nil {
		return trigger.Intent{}, decided, err
	}
	return read(ctx, event, argument)
}

// mustWrite is a decision about who has no write access.
func (s *Service) mustWrite(ctx context.Context, event *eventv1.Event, who *eventv1.Account) (*eventv1.Decision, error) {
	if may, err := s.mayWrite(ctx, event, who); may || err != nil {
		return nil, err
	}
	return wording.Ignored(eventv1.Reason_REASON_NOT_ALLOWED, "%s has no write access to %s/%s",
		who.GetLogin(), event.GetRepository().GetOwner(), event.GetRepository().GetName()), nil
}

func help(context.Context, *eventv1.Event, string) (trigger.Intent, *eventv1.Decision, error) {
	return trigger.Intent{}, &eventv1.Decision{Reason: eventv1.Reason_REASON_ANSWERED, Text: "help: " + Commands}, nil
}

func (s *Service) readCancel(_ context.Context, event *eventv1.Event, _ string) (trigger.Intent, *eventv1.Decision, error) {
	return trigger.Intent{Event: event, Kind: trigger.CancelAsked, Pull: &eventv1.PullRequest{Number: event.GetIssueComment().GetNumber()}}, nil, nil
}

func (s *Service) readRetest(ctx context.Context, event *eventv1.Event, _ string) (trigger.Intent, *eventv1.Decision, error) {
	pull, decided, err := s.openPull(ctx, event)
	if decided != nil || err != nil {
		return trigger.Intent{}, decided, err
	}
	i, decided := s.policy.Resolve(trigger.Intent{Event: event, Pull: pull, Kind: trigger.RebuildAsked})
	return i, decided, nil
}

// readApproval holds the sha against the head: what is approved is what whoever
// writes has seen, never what was pushed since.
func (s *Service) readApproval(ctx context.Context, event *eventv1.Event, sha string) (trigger.Intent, *eventv1.Decision, error) {
	if !anyShaStart.MatchString(sha) {
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "name what is approved: /forge approve and the head's whole sha, or at least 12 digits of it"), nil
	}
	pull, decided, err := s.openPull(ctx, event)
	if decided != nil || err != nil {
		return trigger.Intent{}, decided, err
	}
	i, decided := s.policy.Resolve(trigger.Intent{Event: event, Pull: pull, Kind: trigger.RebuildAsked})
	i.Kind = trigger.ApprovalGiven
	switch {
	case decided != nil:
		return i, decided, nil
	case !strings.HasPrefix(i.Sha, sha):
		return i, wording.Ignored(eventv1.Reason_REASON_STALE, "the head of #%d is %s, not %s", pull.GetNumber(), wording.Short(i.Sha), sha), nil
	}
	if decided := s.needsApproval(i.Fork, fmt.Sprintf("#%d", pull.GetNumber())); decided != nil {
		return i, decided, nil
	}
	decided, err = s.writtenBefore(ctx, i, sha)
	return i, decided, err
}

// writtenBefore is a decision against a comment that was written before its commit
// was heard of: who wrote it cannot have seen that commit here, and may mean another
// whose sha begins alike. A whole sha means one commit, heard of or not.
func (s *Service) writtenBefore(ctx context.Context, i trigger.Intent, sha string) (*eventv1.Decision, error) {
	heard, known, err := store.ForkHeadHeard(ctx, s.store.DB.Read(), i)
	whole := sha == i.Sha
	switch {
	case err != nil:
		return nil, fmt.Errorf("when %s was heard of: %w", wording.Short(i.Sha), err)
	case !known && whole:
		return nil, nil //nolint:nilnil // nothing is against it
	case !known:
		return wording.Ignored(eventv1.Reason_REASON_STALE, "%s is not known here yet: name its whole sha, or comment again once it has a status", wording.Short(i.Sha)), nil
	case whole: // GitHub's times are in whole seconds
		heard = heard.Truncate(time.Second)
	}
	if heard.After(i.Event.GetIssueComment().GetCreateTime().AsTime()) {
		return wording.Ignored(eventv1.Reason_REASON_STALE, "the comment was written before %s was heard of: look at it and comment again", wording.Short(i.Sha)), nil
	}
	return nil, nil //nolint:nilnil // nothing is against it
}

// needsApproval is nil where there is something to approve.
func (s *Service) needsApproval(fork bool, what string) *eventv1.Decision {
	switch {
	case !fork:
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "%s is not from a fork and needs no approval", what)
	case s.policy.Forks == trigger.ForkRun:
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "pull requests from forks need no approval here")
	default:
		return s.policy.ForkDecision(fork)
	}
}

// openPull is the pull request of a comment, as GitHub has it now.
func (s *Service) openPull(ctx context.Context, event *eventv1.Event) (*eventv1.PullRequest, *eventv1.Decision, error) {
	pull, err := s.pullRequest(ctx, event, event.GetIssueComment().GetNumber())
	if err == nil && !pull.GetOpen() {
		return nil, wording.Ignored(eventv1.Reason_REASON_GONE, "#%d is closed", pull.GetNumber()), nil
	}
	return pull, nil, err
}
