package plan

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// Commands is what comments can ask for, as the help says it.
const Commands = "/forge retest, /forge retest failed, /forge cancel, /forge approve <sha>, /forge deploy <environment>, /forge help"

// anyShaStart is enough of a sha to mean one commit: one whose sha begins with fewer
// digits of another's is made in minutes.
var anyShaStart = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// commandReaders read what each command asks for, given what follows its name.
func (s *Service) commandReaders() map[string]func(context.Context, *eventv1.Event, string) (trigger.Intent, *eventv1.Decision, error) {
	return map[string]func(context.Context, *eventv1.Event, string) (trigger.Intent, *eventv1.Decision, error){
		"retest": s.readRetest, "cancel": s.readCancel, "approve": s.readApproval, "deploy": deploying{s}.read, "help": help,
	}
}

// wish is what one command of a comment asks for; where nothing is done for it, the
// decision says why.
type wish struct {
	trigger.Command
	prepared
	decided *eventv1.Decision
}

// decideComment carries out the commands of a comment on a pull request, in order
// and in one transaction, and has it answered once.
func (s *Service) decideComment(ctx context.Context, event *eventv1.Event) (*eventv1.Decision, error) {
	commands, more := trigger.Commands(event.GetIssueComment().GetBody())
	commands = slices.Compact(commands)
	decided := s.unfit(event, commands)
	var wishes []wish
	if decided == nil {
		var err error
		if wishes, err = s.readCommands(ctx, event, commands); err != nil {
			return nil, err
		}
	}
	err := s.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		before, err := store.Decision(ctx, t, event)
		if before != nil || err != nil {
			decided = before
			return err
		}
		if len(wishes) == 0 {
			return t.AddDecision(ctx, event, decided, s.answerTo(event, nil, more, decided))
		}
		all, err := s.carryOut(ctx, t, event, wishes)
		if err != nil {
			return err
		}
		decided = joinCommands(all)
		return t.AddDecision(ctx, event, decided, s.answerTo(event, commands, more, all...))
	})
	return decided, err
}

// unfit is a decision about a comment of which no command is carried out.
func (s *Service) unfit(event *eventv1.Event, commands []trigger.Command) *eventv1.Decision {
	comment := event.GetIssueComment()
	switch {
	case event.GetRepository().GetId() == 0 || comment.GetNumber() == 0:
		return trigger.Malformed("an issue_comment without a repository or a number")
	case !comment.GetOnPullRequest():
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is not on a pull request")
	case len(commands) == 0:
		return wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "the comment is no command")
	case s.remembered > 0 && comment.GetCreateTime() != nil && s.now().Sub(comment.GetCreateTime().AsTime()) >= s.remembered:
		// Whether it was carried out at the time is not known any more.
		return wording.Ignored(eventv1.Reason_REASON_STALE, "the comment is older than what is kept here")
	}
	return nil
}

// readCommands reads what commands ask for. Who wrote them is asked for at GitHub,
// and so is the pull request: the comment names only its number.
func (s *Service) readCommands(ctx context.Context, event *eventv1.Event, commands []trigger.Command) ([]wish, error) {
	var wishes []wish
	for _, command := range commands {
		w := wish{Command: command}
		read := s.commandReaders()[command.Name]
		if read == nil {
			w.decided = wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "/forge %s is no command: there are %s", command.Name, Commands)
			wishes = append(wishes, w)
			continue
		}
		var err error
		if w.decided, err = s.mustWrite(ctx, event, event.GetIssueComment().GetAuthor()); err == nil && w.decided == nil {
			w.Intent, w.decided, err = read(ctx, event, command.Argument)
		}
		if err == nil && w.decided == nil {
			w.prepared, w.decided, err = s.prepare(ctx, w.Intent)
		}
		if err != nil {
			return nil, err
		}
		wishes = append(wishes, w)
	}
	return wishes, nil
}

// carryOut does what wishes ask for, one after the other, and decides about each.
func (s *Service) carryOut(ctx context.Context, t *store.Tx, event *eventv1.Event, wishes []wish) ([]*eventv1.Decision, error) {
	pull, err := t.PullRequest(ctx, event.GetRepository().GetId(), event.GetIssueComment().GetNumber())
	if err != nil {
		return nil, err
	}
	var all []*eventv1.Decision
	for _, w := range wishes {
		decided := w.decided
		if decided == nil {
			if decided, err = applied(ctx, s, t, event, w.prepared, pull); err != nil {
				return nil, err
			}
		}
		all = append(all, decided)
	}
	return all, nil
}

// joinCommands makes one decision of those about the commands of a comment: the
// first that did something gives its reason, or else the first.
func joinCommands(all []*eventv1.Decision) *eventv1.Decision {
	did := slices.IndexFunc(all, func(d *eventv1.Decision) bool {
		return d.GetReason() != eventv1.Reason_REASON_DUPLICATE && len(d.GetBuildIds()) > 0
	})
	joined := &eventv1.Decision{Reason: all[max(did, 0)].GetReason()}
	var texts []string
	for _, d := range all {
		texts = append(texts, d.GetText())
		for _, id := range d.GetBuildIds() {
			if !slices.Contains(joined.GetBuildIds(), id) {
				joined.BuildIds = append(joined.BuildIds, id)
			}
		}
	}
	joined.Text = strings.Join(texts, "; ")
	return joined
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

func (s *Service) readRetest(ctx context.Context, event *eventv1.Event, which string) (trigger.Intent, *eventv1.Decision, error) {
	pull, decided, err := s.openPull(ctx, event)
	if decided != nil || err != nil {
		return trigger.Intent{}, decided, err
	}
	if which != "" && which != "failed" {
		return trigger.Intent{}, wording.Ignored(eventv1.Reason_REASON_NOT_ADDRESSED, "write /forge retest for all jobs, or /forge retest failed for those that did not pass"), nil
	}
	return aiming{s}.resolve(ctx, trigger.Intent{Event: event, Pull: pull, Kind: trigger.RebuildAsked, Again: trigger.Again{Failed: which == "failed"}})
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
	i, decided, err := aiming{s}.resolve(ctx, trigger.Intent{Event: event, Pull: pull, Kind: trigger.RebuildAsked})
	i.Kind = trigger.ApprovalGiven
	switch {
	case decided != nil || err != nil:
		return i, decided, err
	case !strings.HasPrefix(i.Sha, sha):
		return i, wording.Ignored(eventv1.Reason_REASON_STALE, "the head of #%d is %s, not %s", pull.GetNumber(), wording.Short(i.Sha), sha), nil
	}
	if decided := s.needsApproval(i.Fork, fmt.Sprintf("#%d", pull.GetNumber())); decided != nil {
		return i, decided, nil
	}
	decided, err = writtenBefore(ctx, s.store.DB.Read(), i, sha)
	return i, decided, err
}

// writtenBefore is a decision against a comment that was written before its commit
// was heard of: who wrote it cannot have seen that commit here, and may mean another
// whose sha begins alike. A whole sha means one commit, heard of or not.
func writtenBefore(ctx context.Context, q sqldb.Querier, i trigger.Intent, sha string) (*eventv1.Decision, error) {
	heard, known, err := store.ForkHeadHeard(ctx, q, i)
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
