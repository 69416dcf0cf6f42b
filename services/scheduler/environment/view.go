package environment

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// ShowEnvironment is what people see of an environment in a list.
func ShowEnvironment(ctx context.Context, q sqldb.Querier, e *store.Environment) (*schedulerv1.Environment, error) {
	shown := &schedulerv1.Environment{Repository: e.Repository, Name: e.Name, FreezeMessage: e.FreezeMessage, HeldMessage: e.HeldBecause, PullRequest: e.PullRequest}
	if !e.FrozenSince.IsZero() {
		shown.FreezeTime = timestamppb.New(e.FrozenSince)
	}
	for _, part := range []struct {
		id string
		to **schedulerv1.Build
	}{{e.Deployed, &shown.Deployed}, {e.Holder, &shown.Deploying}} {
		if part.id == "" {
			continue
		}
		b, err := store.ReadBuild(ctx, q, part.id, "")
		if err != nil {
			return nil, fmt.Errorf("environment %s of %s: %w", e.Name, e.Repository, err)
		}
		*part.to = b.Build
	}
	return shown, nil
}

// ShowWhole shows who waits, too.
func ShowWhole(ctx context.Context, q sqldb.Querier, e *store.Environment) (*schedulerv1.Environment, error) {
	shown, err := ShowEnvironment(ctx, q, e)
	if err != nil {
		return nil, err
	}
	line, err := store.Waiting(ctx, q, e, "")
	if err != nil {
		return nil, sqldb.Kind(err)
	}
	back, err := store.HeldBack(ctx, q, e.RepositoryID, e.Name, "")
	line = slices.DeleteFunc(line, (*store.Build).HeldBack)
	for _, w := range append(line, back...) {
		shown.Waiting = append(shown.Waiting, w.Build)
	}
	return shown, sqldb.Kind(err)
}
