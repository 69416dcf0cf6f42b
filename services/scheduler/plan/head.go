package plan

import (
	"context"
	"fmt"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
	"github.com/forge-ci/forge/services/wording"
)

// baseHasConfig reports whether a pull request's base has a .forge.yml that would
// have had something built, or is broken.
func baseHasConfig(ctx context.Context, configs configv1.BuildConfigServiceClient, i trigger.Intent) (bool, error) {
	base := i.Pull.GetBase().GetSha()
	if i.Pull.GetNumber() == 0 || base == "" || trigger.ActionOf(i.Action).Deploys || i.Action == schedulerv1.Build_ACTION_CLOSED {
		return false, nil
	}
	answer, err := configs.GetBuildConfig(ctx, &configv1.GetBuildConfigRequest{
		Repository: i.Event.GetRepository(), InstallationId: i.Event.GetInstallationId(), Sha: base,
	})
	switch {
	case fault.Is(err, fault.NotFound): // the branch was rewritten meanwhile
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read .forge.yml at the base %s: %w", wording.Short(base), err)
	}
	return answer.GetInvalid() != nil || trigger.Runs(store.PipelineOf(i.Action, answer.GetConfig())), nil
}

// commitMessage is the message of what is built of a pull request: its head's may say
// that nothing is to be built.
func commitMessage(ctx context.Context, commits configv1.CommitServiceClient, p prepared) (string, error) {
	runs := trigger.Runs(store.PipelineOf(p.Action, p.config.GetConfig())) && !p.config.GetNoMatchingPaths()
	if p.Pull.GetNumber() == 0 || !runs || p.Message != "" || p.SkipAsked() != "" {
		return p.Message, nil
	}
	commit, err := commits.GetCommit(ctx, &configv1.GetCommitRequest{
		Repository: p.Event.GetRepository(), InstallationId: p.Event.GetInstallationId(), Sha: p.Sha, EventTime: p.Event.GetReceiveTime(),
	})
	switch {
	case fault.Is(err, fault.NotFound): // whoever fetches the source will say so
		return "", nil
	case err != nil:
		return "", fmt.Errorf("message of %s: %w", wording.Short(p.Sha), err)
	}
	return commit.GetMessage(), nil
}
