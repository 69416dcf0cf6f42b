package scheduler

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// environment is where a repository is deployed to, one deploy at a time.
type environment struct {
	repositoryID int64
	name         string
	repository   string // owner/name
	holder       string // the build that deploys, or is the next to; "" when free
	deployed     string // the build whose deploy it runs; "" before the first
	// newest is the build that brought the newest commit. A roll back leaves it:
	// what came before the commit rolled back from is no less outdated by that.
	newest        string
	frozen        time.Time // zero: it is not
	freezeMessage string
}

// holdsBack says why a deploy must wait; nothing when it need not. A roll back
// is an order of a person, which a freeze does not hold.
func (e *environment) holdsBack(b *build) (schedulerv1.Build_Reason, string) {
	switch {
	case !e.frozen.IsZero() && b.GetRollBackOf() == "":
		return schedulerv1.Build_REASON_ENVIRONMENT_FROZEN, e.name + " is frozen: " + e.freezeMessage
	case e.holder != "":
		return schedulerv1.Build_REASON_ENVIRONMENT_BUSY, e.name + " is deploying build " + e.holder
	default:
		return schedulerv1.Build_REASON_UNSPECIFIED, ""
	}
}

// enterEnvironment gives a deploy that is about to be stored its environment, or
// has it wait in line.
func (s *Service) enterEnvironment(ctx context.Context, t *tx, b *build) error {
	name := b.GetEnvironment()
	if name == "" {
		return nil
	}
	e, err := t.environment(ctx, b.GetRepository().GetId(), name)
	if err != nil {
		return err
	}
	e.repository = fullName(b.GetRepository())
	if reason, message := e.holdsBack(b); message != "" {
		b.State, b.Reason, b.Message, b.due = schedulerv1.Build_STATE_WAITING, reason, message, time.Time{}
	} else {
		e.holder = b.GetId()
	}
	return t.saveEnvironment(ctx, e)
}

func fullName(r *eventv1.Repository) string { return r.GetOwner() + "/" + r.GetName() }

// noteDeployed stores what a deploy that has passed put where.
func (t *tx) noteDeployed(ctx context.Context, b *build) error {
	name := b.GetEnvironment()
	if name == "" {
		return nil
	}
	e, err := t.environment(ctx, b.GetRepository().GetId(), name)
	if err != nil {
		return err
	}
	e.deployed = b.GetId()
	if b.GetRollBackOf() == "" {
		e.newest = b.GetId()
	}
	return t.saveEnvironment(ctx, e)
}

// leaveEnvironment hands the environment of a deploy that has ended to the next
// in line. It comes once nothing of the deploy is left running: what the
// scheduler has given up may still be at work in its container.
func (s *Service) leaveEnvironment(ctx context.Context, t *tx, buildID string) error {
	e, err := t.environmentLeftBy(ctx, buildID)
	if err != nil || e == nil {
		return err
	}
	e.holder = ""
	return s.moveOn(ctx, t, e)
}

// moveOn stores an environment that has changed, gives it to the next in line if
// it is free, and has the others say what they wait for now.
func (s *Service) moveOn(ctx context.Context, t *tx, e *environment) error {
	waiting, err := waiting(ctx, t, e, t.locked)
	if err != nil {
		return err
	}
	for _, w := range waiting {
		reason, message := e.holdsBack(w)
		if message == "" {
			e.holder = w.GetId()
			w.State, w.due = schedulerv1.Build_STATE_QUEUED, t.now
		} else if message == w.GetMessage() {
			continue
		}
		w.Reason, w.Message = reason, message
		if err := t.saveBuild(ctx, w); err != nil {
			return err
		}
	}
	return t.saveEnvironment(ctx, e)
}

// yield takes an environment from a deploy that has not begun, so that somebody
// else's word can come first. It is back in its old place in line.
func (s *Service) yield(ctx context.Context, t *tx, e *environment) error {
	if e.holder == "" {
		return nil
	}
	b, err := t.build(ctx, e.holder)
	if err != nil || b.GetState() != schedulerv1.Build_STATE_QUEUED || b.GetAttempt() > 0 || b.GetRollBackOf() != "" {
		return err
	}
	e.holder = ""
	b.State, b.due = schedulerv1.Build_STATE_WAITING, time.Time{}
	return t.saveBuild(ctx, b)
}

// contained is why a deploy is not run.
type contained struct {
	buildID string
	same    bool // it is the very commit
}

func (c contained) Error() string { return "already contained in build " + c.buildID }

// unsure is why nobody can tell whether a deploy is to run.
type unsure struct{ cause error }

func (u unsure) Error() string {
	return "cannot tell whether it is deployed already: " + u.cause.Error()
}

// stillWanted is nil when a commit is to be deployed, contained when the
// environment has had it, or a newer one, and unsure when nobody can tell. An event
// told of the commit at the time told.
func (s *Service) stillWanted(ctx context.Context, repository *eventv1.Repository, installation int64, environment, sha string, told *timestamppb.Timestamp) error {
	newest, err := s.store.newestDeployed(ctx, repository.GetId(), environment)
	switch {
	case err != nil:
		return unsure{err}
	case newest == nil:
		return nil
	case newest.GetSha() == sha:
		return contained{newest.GetId(), true}
	}
	answer, err := s.commits.CompareCommits(ctx, &configv1.CompareCommitsRequest{
		Repository: repository, InstallationId: installation, Base: newest.GetSha(), Head: sha, EventTime: told,
	})
	switch {
	case fault.Is(err, fault.NotFound): // the history was rewritten: neither contains the other
		return nil
	case err != nil:
		return unsure{err}
	case answer.GetRelation() == configv1.CompareCommitsResponse_RELATION_BEHIND,
		answer.GetRelation() == configv1.CompareCommitsResponse_RELATION_IDENTICAL:
		return contained{newest.GetId(), false}
	default:
		return nil
	}
}

// containedIn asks whether a deploy that is wanted comes too late. Where nobody
// can tell, the build is made, and asked about again before it starts.
func (s *Service) containedIn(ctx context.Context, i intent) (buildID string) {
	name := purposeOf(i.action).environment
	if name == "" {
		return ""
	}
	err := s.stillWanted(ctx, i.event.GetRepository(), i.event.GetInstallationId(), name, i.sha, i.event.GetReceiveTime())
	if c, ok := errors.AsType[contained](err); ok && (i.build == "" || !c.same) {
		return c.buildID
	}
	return ""
}

// startWanted asks that of a deploy that has its environment. A person may have
// the newest deployed once more.
func (s *Service) startWanted(ctx context.Context, b *build) error {
	name := b.GetEnvironment()
	if name == "" || b.GetRollBackOf() != "" {
		return nil
	}
	err := s.stillWanted(ctx, b.GetRepository(), b.GetInstallationId(), name, b.GetSha(), b.GetCreateTime())
	if c, ok := errors.AsType[contained](err); ok && c.same && b.GetRetryOf() != "" {
		return nil
	}
	return err
}
