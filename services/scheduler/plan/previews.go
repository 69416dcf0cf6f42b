package plan

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// previewing has each pull request have its previews: what it is to have is stored, and
// each change of it, each test that passes and each deploy that ends brings about what
// is still missing.
type previewing struct{ *Service }

// standard is the default branch's file; nil where it has none, or errors.
func (s previewing) standard(ctx context.Context, i trigger.Intent) (*configv1.BuildConfig, error) {
	branch := i.Event.GetRepository().GetDefaultBranch()
	answer, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Branch: branch, EventTime: i.Event.GetReceiveTime(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("read .forge.yml of branch %s: %w", branch, err)
	}
	return answer.GetConfig(), nil
}

// aimed is what is offered of a pull request with the previews that it is to have.
func (s previewing) aimed(ctx context.Context, p prepared) (prepared, error) {
	file := p.config.GetConfig()
	if p.Kind != trigger.PullRequestOffered || p.Pull.GetNumber() == 0 || !trigger.HasPreviews(file) {
		return p, nil
	}
	standard, err := s.standard(ctx, p.Intent)
	if err != nil {
		return p, err
	}
	// Events of one second come in any order.
	if len(trigger.PreviewLabels(file, standard)) > 0 {
		now, err := s.pullRequest(ctx, p.Event, p.Pull.GetNumber())
		if err != nil && !fault.Is(err, fault.NotFound) {
			return p, err
		}
		if err == nil && !now.GetUpdateTime().AsTime().Before(p.Pull.GetUpdateTime().AsTime()) {
			p.Pull = proto.CloneOf(p.Pull)
			p.Pull.Labels = now.GetLabels()
		}
	}
	p.previews = trigger.Previews(file, standard, p.Pull)
	return p, nil
}

// counts reports whether a preview of the head needs a label.
func (s previewing) counts(ctx context.Context, i trigger.Intent, head *configv1.BuildConfig, label string) (bool, error) {
	if !trigger.HasPreviews(head) {
		return false, nil
	}
	standard, err := s.standard(ctx, i)
	return slices.Contains(trigger.PreviewLabels(head, standard), label), err
}

// follow stores what an open pull request is to have by an event that is not stale, and
// brings about what follows from that. A file with errors takes nothing down.
func (s previewing) follow(ctx context.Context, t *store.Tx, p prepared, repeated bool) (*eventv1.Decision, error) {
	repository, number := p.Event.GetRepository().GetId(), p.Pull.GetNumber()
	previews := store.Previews{Tx: t}
	before, err := previews.Wanted(ctx, repository, number)
	if err != nil || before == nil && len(p.previews) == 0 {
		return nil, err
	}
	wanted := &store.Preview{RepositoryID: repository, PullRequest: number, Sha: p.Sha, Labels: p.Pull.GetLabels(), File: &configv1.BuildConfig{}}
	if p.Builds() && p.config.GetConfig() == nil {
		wanted.File = before.File // its sha has no tests that pass
		return nil, previews.Want(ctx, wanted)
	}
	if len(p.previews) > 0 {
		wanted.File = proto.CloneOf(p.config.GetConfig())
		wanted.File.Environments = p.previews
	}
	if err := previews.Want(ctx, wanted); err != nil {
		return nil, err
	}
	decided, err := s.end(ctx, t, p.Event, number, wants{before, wanted}, schedulerv1.Build_REASON_UNWANTED, fmt.Sprintf("#%d is not to have this preview any more", number))
	if err != nil || repeated || len(p.previews) == 0 {
		return decided, err
	}
	tested, err := t.NewestContent(ctx, p.Intent)
	if err != nil || tested == nil || tested.GetState() != schedulerv1.Build_STATE_PASSED {
		return decided, err
	}
	offered, err := s.offer(ctx, t, p.Event, wanted, tested)
	return alongside(decided, offered), err
}

// closed ends the previews of a pull request that was closed.
func (s previewing) closed(ctx context.Context, t *store.Tx, p prepared) (*eventv1.Decision, error) {
	number, how := p.Pull.GetNumber(), "closed"
	if p.Pull.GetMerged() {
		how = "merged"
	}
	previews, repository := store.Previews{Tx: t}, p.Event.GetRepository().GetId()
	before, err := previews.Wanted(ctx, repository, number)
	if err == nil {
		err = previews.Forget(ctx, repository, number)
	}
	if err != nil {
		return nil, err
	}
	return s.end(ctx, t, p.Event, number, wants{before: before}, schedulerv1.Build_REASON_PULL_REQUEST_CLOSED, fmt.Sprintf("#%d was %s", number, how))
}

// wants is what a pull request was to have, and what it is to have now.
type wants struct{ before, now *store.Preview }

// end ends the previews of a pull request that it is not to have any more: their deploys
// are cancelled, and what takes down what is there waits in their line.
func (s previewing) end(ctx context.Context, t *store.Tx, event *eventv1.Event, number int32, of wants, reason schedulerv1.Build_Reason, message string) (*eventv1.Decision, error) {
	previews, repository := store.Previews{Tx: t}, event.GetRepository().GetId()
	all, err := previews.Environments(ctx, repository, number)
	if err != nil {
		return nil, err
	}
	var decided *eventv1.Decision
	for _, e := range all {
		if of.now.Wants(e.Name) {
			continue
		}
		cancelled, err := s.environments.CancelPreview(ctx, t, repository, e.Name, reason, message, "")
		if err != nil {
			return nil, err
		}
		if len(cancelled) > 0 {
			decided = alongside(decided, &eventv1.Decision{Reason: eventv1.Reason_REASON_CANCELLED, Text: "cancelled: " + message, BuildIds: cancelled})
		}
		stop, err := s.stop(ctx, t, event, e.Name)
		if err != nil {
			return nil, err
		}
		decided = alongside(decided, stop)
		if err := noteEnd(ctx, t, event, e, stop, cancelled, of.before.Wants(e.Name), message); err != nil {
			return nil, err
		}
	}
	// What is left free, and has nothing to be taken down, leaves the lists.
	if all, err = previews.Environments(ctx, repository, number); err != nil {
		return nil, err
	}
	for _, e := range all {
		if err := s.environments.Advance(ctx, t, e); err != nil {
			return nil, err
		}
	}
	return decided, nil
}

// stop takes down what is in a preview, as its own file has it.
func (s previewing) stop(ctx context.Context, t *store.Tx, event *eventv1.Event, name string) (*eventv1.Decision, error) {
	up, err := s.environments.ToStop(ctx, t, event.GetRepository().GetId(), name)
	if up == nil || err != nil {
		return nil, err
	}
	return s.deploy(ctx, t, event, up, up.Config, schedulerv1.Build_ACTION_STOP, name)
}

// deploy makes a build of what another one was of, with a file that has one environment.
func (s previewing) deploy(ctx context.Context, t *store.Tx, event *eventv1.Event, of *store.Build, file *configv1.BuildConfig, action schedulerv1.Build_Action, name string) (*eventv1.Decision, error) {
	id, err := s.NewID()
	if err != nil {
		return nil, err
	}
	i := Repeat(event, of)
	i.Kind, i.Action, i.Environment = trigger.DeployCame, action, name
	return s.addBuild(ctx, t, prepared{Intent: i, id: id, config: alone(file, name)})
}

// tested deploys the head of a pull request to its previews, now that it has passed.
func (s previewing) tested(ctx context.Context, t *store.Tx, b *store.Build) error {
	proposed := b.GetAction() == schedulerv1.Build_ACTION_TEST || b.GetAction() == schedulerv1.Build_ACTION_STAGING
	if !proposed || b.GetPullRequest() == 0 {
		return nil
	}
	wanted, err := store.Previews{Tx: t}.Wanted(ctx, b.GetRepository().GetId(), b.GetPullRequest())
	if wanted == nil || err != nil || wanted.Sha != b.GetSha() {
		return err
	}
	_, err = s.offer(ctx, t, &eventv1.Event{
		Repository: b.GetRepository(), InstallationId: b.GetInstallationId(), Sender: &eventv1.Account{Login: b.GetActor()}, DeliveryId: b.GetDeliveryId(),
	}, wanted, b)
	return err
}

// offer deploys what passed its tests to the previews of its pull request, unless it is
// there or about to be. What is older and has not ended makes way.
func (s previewing) offer(ctx context.Context, t *store.Tx, event *eventv1.Event, wanted *store.Preview, tested *store.Build) (*eventv1.Decision, error) {
	var decided *eventv1.Decision
	for _, e := range wanted.File.GetEnvironments() {
		newest, err := store.Previews{Tx: t}.Newest(ctx, wanted.RepositoryID, e.GetName())
		if err != nil {
			return nil, err
		}
		if newest != nil && newest.GetSha() == wanted.Sha && there(newest) {
			continue
		}
		one, err := s.replace(ctx, t, event, wanted, tested, e.GetName())
		if err != nil {
			return nil, fmt.Errorf("deploy %s to %s: %w", wording.Short(wanted.Sha), e.GetName(), err)
		}
		decided = alongside(decided, one)
	}
	return decided, nil
}

// there reports whether the newest build of a preview has its commit there, or is about
// to.
func there(newest *store.Build) bool {
	if newest.GetAction() != schedulerv1.Build_ACTION_PREVIEW || newest.GetTakeDownTime() != nil || !newest.Cancel.Time.IsZero() {
		return false
	}
	return newest.GetState() == schedulerv1.Build_STATE_PASSED || !store.Ended(newest.GetState())
}

// replace deploys to one preview what passed its tests. Where another environment is
// called so, nobody gets into its line: the commit says why it has no preview.
func (s previewing) replace(ctx context.Context, t *store.Tx, event *eventv1.Event, wanted *store.Preview, tested *store.Build, name string) (*eventv1.Decision, error) {
	free, err := store.Previews{Tx: t}.Claim(ctx, wanted.RepositoryID, name, wanted.PullRequest)
	if err != nil {
		return nil, err
	}
	if !free {
		return s.refuse(ctx, t, event, tested, wanted.File, name)
	}
	id, err := s.NewID()
	if err != nil {
		return nil, err
	}
	if _, err := s.environments.CancelPreview(ctx, t, wanted.RepositoryID, name,
		schedulerv1.Build_REASON_SUPERSEDED, "Superseded by "+wording.Short(wanted.Sha), id); err != nil {
		return nil, err
	}
	i := Repeat(event, tested)
	i.Kind, i.Action, i.Environment = trigger.DeployCame, schedulerv1.Build_ACTION_PREVIEW, name
	i.Pull.Labels = wanted.Labels
	p := prepared{Intent: i, id: id, config: alone(wanted.File, name)}
	decided, err := s.addBuild(ctx, t, p)
	if err != nil {
		return nil, err
	}
	return decided, note(ctx, t, schedulerv1.AuditEntry_ORIGIN_EVENT, p, decided)
}

// refuse tells at the commit that the name of a preview is another environment's.
func (s previewing) refuse(ctx context.Context, t *store.Tx, event *eventv1.Event, tested *store.Build, file *configv1.BuildConfig, name string) (*eventv1.Decision, error) {
	id, err := s.NewID()
	if err != nil {
		return nil, err
	}
	i := Repeat(event, tested)
	i.Kind, i.Action, i.Environment = trigger.DeployCame, schedulerv1.Build_ACTION_PREVIEW, name
	b := s.newBuild(ctx, t, prepared{Intent: i, id: id, config: alone(file, name)})
	b.Environment, b.EnvironmentUrl = "", ""
	b.State, b.Reason, b.EndTime = schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_REASON_CONFIG_INVALID, b.GetCreateTime()
	b.Message = name + " is another environment, or was one: call the previews otherwise"
	return wording.Ignored(eventv1.Reason_REASON_INVALID_CONFIG, "%s", b.GetMessage()), t.AddBuild(ctx, b)
}

// stored is a build that is asked for once more, with the file that it was made with: the
// pull request's may be gone, and is held to the default branch's already.
func (s previewing) stored(ctx context.Context, p prepared) (prepared, *eventv1.Decision, error) {
	old, err := store.ReadBuild(ctx, s.store.DB.Read(), p.Build, "")
	if fault.Is(err, fault.NotFound) {
		return p, wording.Ignored(eventv1.Reason_REASON_GONE, "build %s is gone", p.Build), nil
	}
	if err != nil {
		return p, nil, err
	}
	p.config = &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Config{Config: old.Config}}
	p.id, err = s.NewID()
	return p, nil, err
}

// again runs once more what was the last to happen in a preview, where it is still to.
func (s previewing) again(ctx context.Context, t *store.Tx, p prepared) (*eventv1.Decision, error) {
	repository, number := p.Event.GetRepository().GetId(), p.Pull.GetNumber()
	wanted, err := store.Previews{Tx: t}.Wanted(ctx, repository, number)
	if err != nil {
		return nil, err
	}
	newest, err := store.Previews{Tx: t}.Newest(ctx, repository, p.Environment)
	if err != nil {
		return nil, err
	}
	name, deploys := p.Environment, p.Action == schedulerv1.Build_ACTION_PREVIEW
	switch {
	case name == "" || newest == nil:
		return wording.Ignored(eventv1.Reason_REASON_NOTHING_TO_RUN, "#%d has no such preview", number), nil
	case newest.GetId() != p.Build:
		decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "build %s of %s came later", newest.GetId(), name)
		decided.BuildIds = []string{newest.GetId()}
		return decided, nil
	case !store.Ended(newest.GetState()):
		decided := wording.Ignored(eventv1.Reason_REASON_DUPLICATE, "build %s has not ended", newest.GetId())
		decided.BuildIds = []string{newest.GetId()}
		return decided, nil
	case deploys && (!wanted.Wants(name) || wanted.Sha != p.Sha):
		return wording.Ignored(eventv1.Reason_REASON_STALE, "#%d is not to have %s in %s any more", number, wording.Short(p.Sha), name), nil
	case !deploys && wanted.Wants(name):
		return wording.Ignored(eventv1.Reason_REASON_STALE, "#%d is to have %s again", number, name), nil
	}
	if free, err := (store.Previews{Tx: t}).Claim(ctx, repository, name, number); !free || err != nil {
		return wording.Ignored(eventv1.Reason_REASON_STALE, "%s is another environment now", name), err
	}
	p.retryOf = p.Build
	return s.addBuild(ctx, t, p)
}
