package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// aiming says which pull requests and merge groups are built.
type aiming struct{ *Service }

// rules is what a .forge.yml says of pull requests.
type rules = configv1.BuildConfig_PullRequest

// unwanted is why nothing is built of a pull request as it is now, and tests of it
// that have not ended are over.
type unwanted struct {
	decision eventv1.Reason
	build    schedulerv1.Build_Reason
	text     string
}

// aim looks up what is built by what the file at the tip of the base branch says, so
// that no pull request switches its own checks off. Where that branch has no file, or
// a broken one, the file of what is built can name further base branches, and take
// none away.
func (s aiming) aim(ctx context.Context, i trigger.Intent) (trigger.Intent, *rules, *eventv1.Decision, error) {
	branch := i.Pull.GetBase().GetRef()
	base, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Branch: branch, EventTime: i.Event.GetReceiveTime(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return i, nil, nil, fmt.Errorf("read .forge.yml of branch %s: %w", branch, err)
	}
	said := base.GetConfig().GetPullRequest()
	aimed, decided := s.policy.LookUp(i, said.GetBranches())
	if decided.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED || base.GetConfig() != nil {
		return aimed, said, decided, nil
	}
	head, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Sha: i.Sha, EventTime: i.Event.GetReceiveTime(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return i, nil, nil, fmt.Errorf("read .forge.yml at %s: %w", wording.Short(i.Sha), err)
	}
	if named := head.GetConfig().GetPullRequest().GetBranches(); trigger.MatchAny(named, branch) {
		aimed, decided = s.policy.LookUp(i, named)
	}
	return aimed, nil, decided, nil
}

// aimed says what is built of a pull request or a merge group; a decision in its place
// says why nothing is done.
func (s aiming) aimed(ctx context.Context, p prepared) (prepared, *eventv1.Decision, error) {
	if p.Kind == trigger.PullRequestEnded {
		if runs, err := s.runsOnceClosed(ctx, p.Intent); !runs || err != nil {
			p.Action = schedulerv1.Build_ACTION_UNSPECIFIED
			return p, nil, err
		}
	}
	found, said, decided, err := s.aim(ctx, p.Intent)
	if err != nil {
		return p, nil, err
	}
	ignored := decided.GetReason() == eventv1.Reason_REASON_BRANCH_IGNORED
	switch {
	case decided != nil && p.Kind == trigger.PullRequestEnded:
		p.Action = schedulerv1.Build_ACTION_UNSPECIFIED
		return p, nil, nil
	case ignored && p.Kind == trigger.PullRequestOffered:
		p.Action = schedulerv1.Build_ACTION_UNSPECIFIED
		p.unwanted = &unwanted{decided.GetReason(), schedulerv1.Build_REASON_BASE_CHANGED, strings.TrimPrefix(decided.GetText(), "ignored: ")}
		return p, nil, nil
	case decided != nil:
		return p, decided, nil
	}
	p.Intent = found
	if p.Kind != trigger.PullRequestOffered && p.Kind != trigger.PullRequestMarked {
		return p, nil, nil
	}
	return s.conditioned(ctx, p, said)
}

// resolve says what a person who asks for the tests of a pull request has built.
func (s aiming) resolve(ctx context.Context, i trigger.Intent) (trigger.Intent, *eventv1.Decision, error) {
	i, decided := s.policy.Resolve(i)
	if decided != nil {
		return i, decided, nil
	}
	i, _, decided, err := s.aim(ctx, i)
	return i, decided, err
}

// runsOnceClosed reports whether the head of a closed pull request has anything for that.
func (s aiming) runsOnceClosed(ctx context.Context, i trigger.Intent) (bool, error) {
	head, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Sha: i.Sha, EventTime: i.Event.GetReceiveTime(),
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read .forge.yml at %s: %w", wording.Short(i.Sha), err)
	}
	return trigger.Runs(head.GetConfig().GetPullRequest().GetClosed()), nil
}

// applyEnded ends the previews of a pull request that was closed, and runs what the file
// has for that: of a fork only where somebody stands for that commit.
func (s aiming) applyEnded(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	late := s.remembered > 0 && pull.Forgotten(p.Intent, t.Now.Add(-s.remembered))
	if late || (pull.Stale(p.Intent) && !p.Pull.GetMerged()) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	previews, err := previewing(s).closed(ctx, t, p)
	if err != nil {
		return nil, err
	}
	decided, err := s.runClosed(ctx, t, p, pull)
	return alongside(decided, previews), err
}

// runClosed runs what the file has for a pull request that was closed.
func (s aiming) runClosed(ctx context.Context, t *store.Tx, p prepared, pull *store.PullRequest) (*eventv1.Decision, error) {
	if p.Builds() && pull.Ends(p.Intent) { // heard of before
		prior, err := t.NewestContent(ctx, p.Intent)
		if err != nil {
			return nil, err
		}
		if prior != nil {
			return duplicate(prior), nil
		}
	}
	if pull.Update(p.Intent); p.Pull.GetMerged() {
		if err := t.SavePullRequest(ctx, pull); err != nil {
			return nil, err
		}
		if err := store.ShowAgain(ctx, t, p.Event.GetRepository().GetId(), pull.Number); err != nil {
			return nil, err
		}
	}
	if !p.Builds() {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	if p.Fork && s.policy.Forks == trigger.ForkApprove {
		by, err := t.RecordForkHead(ctx, p.Intent, "", false)
		if err != nil {
			return nil, err
		}
		if by == "" {
			return wording.Ignored(eventv1.Reason_REASON_FORK_IGNORED, "pull_request.closed is not run, since nobody approved %s", wording.Short(p.Sha)), nil
		}
	}
	return s.addBuild(ctx, t, p)
}

// conditioned holds a pull request against the labels that it needs, and against
// whether drafts are built. Events of one second come in any order, so GitHub is asked
// where that makes a difference.
func (s aiming) conditioned(ctx context.Context, p prepared, said *rules) (prepared, *eventv1.Decision, error) {
	marked := p.Kind == trigger.PullRequestMarked
	if marked {
		if counts, err := s.markCounts(ctx, p.Intent, said); !counts || err != nil {
			return p, wording.Ignored(eventv1.Reason_REASON_ACTION_IGNORED, "action %s", p.Event.GetAction()), err
		}
		p.Kind = trigger.PullRequestOffered
	}
	why := unmet(said, p.Pull)
	if marked || why != "" {
		now, err := s.pullRequest(ctx, p.Event, p.Pull.GetNumber())
		switch {
		case fault.Is(err, fault.NotFound):
			return p, wording.Ignored(eventv1.Reason_REASON_GONE, "#%d is gone from GitHub", p.Pull.GetNumber()), nil
		case err != nil:
			return p, nil, err
		case !now.GetUpdateTime().AsTime().Before(p.Pull.GetUpdateTime().AsTime()):
			p.Pull = proto.CloneOf(p.Pull)
			p.Pull.Labels, p.Pull.Draft = now.GetLabels(), now.GetDraft()
			why = unmet(said, p.Pull)
		}
	}
	var err error
	if p.Fork && s.policy.Forks == trigger.ForkApprove && !marked { // who put a label on it has not pushed it
		p.Voucher, err = s.voucher(ctx, p.Intent)
	}
	if why != "" {
		p.Action = schedulerv1.Build_ACTION_UNSPECIFIED
		p.unwanted = &unwanted{eventv1.Reason_REASON_NOT_ADDRESSED, schedulerv1.Build_REASON_UNWANTED, why}
	}
	return p, nil, err
}

// unmet says which condition a pull request does not meet; "" where it meets all.
func unmet(said *rules, pull *eventv1.PullRequest) string {
	switch labels := said.GetLabels(); {
	case pull.GetDraft() && skipsDrafts(said):
		return fmt.Sprintf("#%d is a draft", pull.GetNumber())
	case len(labels) > 0 && !slices.ContainsFunc(labels, func(label string) bool { return slices.Contains(pull.GetLabels(), label) }):
		return fmt.Sprintf("#%d has no label %s", pull.GetNumber(), strings.Join(labels, " or "))
	}
	return ""
}

func skipsDrafts(said *rules) bool { return said != nil && said.Drafts != nil && !said.GetDrafts() }

// markCounts reports whether a file asks for what changed: the label, or that it is a
// draft.
func (s aiming) markCounts(ctx context.Context, i trigger.Intent, said *rules) (bool, error) {
	if action := i.Event.GetAction(); action == "ready_for_review" || action == "converted_to_draft" {
		return skipsDrafts(said), nil
	}
	label := i.Event.GetPullRequest().GetLabel()
	if slices.Contains(said.GetLabels(), label) {
		return true, nil
	}
	head, err := s.Configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Sha: i.Sha, EventTime: i.Event.GetReceiveTime(),
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return false, fmt.Errorf("read .forge.yml at %s: %w", wording.Short(i.Sha), err)
	}
	jobs := store.PipelineOf(i.Action, head.GetConfig()).GetJobs()
	if slices.ContainsFunc(jobs, func(job *configv1.Job) bool { return slices.Contains(job.GetCondition().GetLabels(), label) }) {
		return true, nil
	}
	return previewing(s).counts(ctx, i, head.GetConfig(), label)
}

// gainsJob reports whether a job that a build left out for its labels is to run by
// those that the pull request has now.
func (p prepared) gainsJob(ctx context.Context, t *store.Tx, prior *store.Build) (bool, error) {
	pipeline := store.PipelineOf(p.Action, p.config.GetConfig())
	if !wantsLabels(pipeline) {
		return false, nil
	}
	before, err := store.JobsOf(ctx, t, prior.GetId(), "")
	return slices.ContainsFunc(pipeline.GetJobs(), func(job *configv1.Job) bool {
		return p.leftOut(job) == "" && slices.ContainsFunc(before, func(old *store.Build) bool {
			return old.GetJob() == job.GetTitle() && old.GetReason() == schedulerv1.Build_REASON_CONDITION && strings.HasPrefix(old.GetMessage(), notRun+noLabel)
		})
	}), err
}
