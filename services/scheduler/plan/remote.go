package plan

import (
	"context"
	"slices"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// remoting builds what somebody's working tree has other than a commit.
type remoting struct{ *Service }

// located is a remote run with the commit that it builds, and of its file what is to be
// run. Nothing else of the file counts.
func (s remoting) located(p prepared) prepared {
	p.Sha = p.config.GetSha()
	if config := p.config.GetConfig(); config != nil {
		trigger.Choice{Job: p.Remote.GetJob(), Matrix: p.Remote.GetMatrix()}.Leave(config)
	}
	return p
}

// apply makes the build. Each call makes one of its own.
func (s remoting) apply(ctx context.Context, t *store.Tx, p prepared, _ *store.PullRequest) (*eventv1.Decision, error) {
	p.retryOf = p.Build
	decided, err := s.addBuild(ctx, t, p)
	if err != nil || !slices.Contains(decided.GetBuildIds(), p.id) {
		return decided, err
	}
	return decided, store.AddDifference(ctx, t, p.id, p.Remote)
}
