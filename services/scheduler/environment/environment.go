package environment

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// Service lets deploys into environments.
type Service struct {
	Store  *store.Store
	Policy trigger.Policy
	// Commits tells which commit contains which.
	Commits configv1.CommitServiceClient
	// Open lets the jobs of a deploy begin that has got its environment.
	Open func(context.Context, *store.Tx, *store.Build) error
	// Cancel ends a deploy that has not begun.
	Cancel func(context.Context, *store.Tx, *store.Build, schedulerv1.Build_Reason, string) error
	// Tested has what a pull request is to have deployed to its previews, once its tests
	// have passed.
	Tested func(context.Context, *store.Tx, *store.Build) error
	// Follow makes the deploys that come after one which has passed.
	Follow func(context.Context, *store.Tx, *store.Build) error
}

// Leave hands the environment of a deploy that has ended to the next
// in line. It comes once nothing of the deploy is left running: what the
// scheduler has given up may still be at work in its container.
func (s *Service) Leave(ctx context.Context, t *store.Tx, buildID string) error {
	e, err := t.EnvironmentLeftBy(ctx, buildID)
	if err != nil || e == nil {
		return err
	}
	return s.Release(ctx, t, e)
}

// Release hands an environment to the next in line.
func (s *Service) Release(ctx context.Context, t *store.Tx, e *store.Environment) error {
	e.Holder, e.HeldBecause = "", ""
	return s.Advance(ctx, t, e)
}

// Hold has those who wait for the environment of a deploy that has ended say why it
// is not free.
func (s *Service) Hold(ctx context.Context, t *store.Tx, b *store.Build, because string) error {
	if b.GetEnvironment() == "" || !store.Ended(b.GetState()) {
		return nil
	}
	e, err := t.Environment(ctx, b.GetRepository().GetId(), b.GetEnvironment())
	if err != nil || e.Holder != b.GetId() || e.HeldBecause == because {
		return err
	}
	e.HeldBecause = because
	return s.Advance(ctx, t, e)
}

// Advance stores an environment that has changed, gives it to the next in line if
// it is free, and has the others say what they wait for now.
func (s *Service) Advance(ctx context.Context, t *store.Tx, e *store.Environment) error {
	waiting, err := store.Waiting(ctx, t, e, t.Locked)
	if err != nil {
		return err
	}
	var opened []*store.Build
	for _, w := range waiting {
		if w.GetReason() == schedulerv1.Build_REASON_DEPLOYS_AFTER { // it is not in line yet
			continue
		}
		reason, message := e.BlockedBy(w)
		if message == "" {
			e.Holder = w.GetId()
			w.State, w.Due = schedulerv1.Build_STATE_QUEUED, t.Now
		} else if message == w.GetMessage() {
			continue
		}
		w.Reason, w.Message = reason, message
		if err := t.SaveBuild(ctx, w); err != nil {
			return err
		}
		if w.GetState() == schedulerv1.Build_STATE_QUEUED {
			opened = append(opened, w)
		}
	}
	if err := t.SaveEnvironment(ctx, e); err != nil {
		return err
	}
	for _, w := range opened {
		if err := s.Open(ctx, t, w); err != nil {
			return err
		}
	}
	if e.PullRequest == 0 || e.Holder != "" || len(waiting) > 0 {
		return nil
	}
	return s.retire(ctx, t, e)
}

// ReleaseUnstarted takes an environment from a deploy that has not begun, so that somebody
// else's word can come first. It is back in its old place in line.
func (s *Service) ReleaseUnstarted(ctx context.Context, t *store.Tx, e *store.Environment) error {
	if e.Holder == "" {
		return nil
	}
	b, err := t.Build(ctx, e.Holder)
	if err != nil || b.GetState() != schedulerv1.Build_STATE_QUEUED || b.GetAttempt() > 0 || b.GetRollBackOf() != "" {
		return err
	}
	if kept, err := keepBack(ctx, t, b); !kept || err != nil {
		return err
	}
	e.Holder = ""
	b.State, b.Due = schedulerv1.Build_STATE_WAITING, time.Time{}
	return t.SaveBuild(ctx, b)
}

// keepBack has the jobs of a build wait again; false where one of them has begun.
func keepBack(ctx context.Context, t *store.Tx, whole *store.Build) (bool, error) {
	jobs, err := store.JobsOf(ctx, t, whole.GetId(), t.Locked)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(jobs, func(job *store.Build) bool { return job.GetAttempt() > 0 }) {
		return false, nil
	}
	for _, job := range jobs {
		if job.GetState() != schedulerv1.Build_STATE_QUEUED {
			continue
		}
		job.State, job.Reason, job.Due = schedulerv1.Build_STATE_WAITING, schedulerv1.Build_REASON_NEEDS, time.Time{}
		if err := t.SaveBuild(ctx, job); err != nil {
			return false, err
		}
	}
	return true, nil
}

// ContainedError is why a deploy is not run.
type ContainedError struct {
	BuildID string
	same    bool // it is the very commit
}

func (c ContainedError) Error() string { return "already contained in build " + c.BuildID }

// CannotCompareError is why nobody can tell whether a deploy is to run.
type CannotCompareError struct{ cause error }

func (c CannotCompareError) Error() string {
	return "cannot tell whether it is deployed already: " + c.cause.Error()
}

// compare is nil when a commit is to be deployed, contained when the
// environment has had it, or a newer one, and unsure when nobody can tell. An event
// told of the commit at the time told.
func (s *Service) compare(ctx context.Context, repository *eventv1.Repository, installation int64, environment, sha string, told *timestamppb.Timestamp) error {
	newest, err := s.Store.NewestDeployed(ctx, repository.GetId(), environment)
	switch {
	case err != nil:
		return CannotCompareError{err}
	case newest == nil:
		return nil
	case newest.GetSha() == sha:
		return ContainedError{newest.GetId(), true}
	}
	answer, err := s.Commits.CompareCommits(ctx, &configv1.CompareCommitsRequest{
		Repository: repository, InstallationId: installation, Base: newest.GetSha(), Head: sha, EventTime: told,
	})
	switch {
	case fault.Is(err, fault.NotFound): // the history was rewritten: neither contains the other
		return nil
	case err != nil:
		return CannotCompareError{err}
	case answer.GetRelation() == configv1.CompareCommitsResponse_RELATION_BEHIND,
		answer.GetRelation() == configv1.CompareCommitsResponse_RELATION_IDENTICAL:
		return ContainedError{newest.GetId(), false}
	default:
		return nil
	}
}

// ContainedIn asks whether a deploy that is wanted comes too late. Where nobody
// can tell, the build is made, and asked about again before it starts.
func (s *Service) ContainedIn(ctx context.Context, i trigger.Intent) (buildID string) {
	name := i.DeploysTo()
	if name == "" {
		return ""
	}
	err := s.compare(ctx, i.Event.GetRepository(), i.Event.GetInstallationId(), name, i.Sha, i.Event.GetReceiveTime())
	if c, ok := errors.AsType[ContainedError](err); ok && (i.Build == "" || !c.same) {
		return c.BuildID
	}
	return ""
}

// StillWanted asks that of a deploy that has its environment. A person may have
// the newest deployed once more.
func (s *Service) StillWanted(ctx context.Context, b *store.Build) error {
	name := b.GetEnvironment()
	if name == "" || b.GetRollBackOf() != "" || trigger.IsPreview(b.GetAction()) {
		return nil
	}
	err := s.compare(ctx, b.GetRepository(), b.GetInstallationId(), name, b.GetSha(), b.GetCreateTime())
	if c, ok := errors.AsType[ContainedError](err); ok && c.same && b.GetRetryOf() != "" {
		return nil
	}
	return err
}

// AskPromotion asks for the pull request into production, if that is what
// follows from the build.
func (s *Service) AskPromotion(ctx context.Context, t *store.Tx, b *store.Build, because string) (bool, error) {
	into := s.Policy.PromotesTo(b.GetRepository())
	if !trigger.ActionOf(b.GetAction()).Promotes || into == "" || b.GetRollBackOf() != "" {
		return false, nil
	}
	return true, t.AddPromotion(ctx, &reporterv1.PromoteRequest{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(),
		Head: b.GetBaseRef(), Base: into, Sha: b.GetSha(), BuildUrl: because,
	}, b.Traceparent)
}
