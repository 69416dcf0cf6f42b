package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/config/worktree"
	"github.com/forge-ci/forge/services/wording"
)

// fitsRemote refuses what a remote run has no use for.
func (r *runHere) fitsRemote() error {
	switch {
	case !r.Remote:
		return nil
	case r.Event != "" && r.Event != "pull_request" || r.Tag != "" || len(r.Label) > 0 || len(r.Input) > 0 || r.Base != "" || r.Branch != "":
		return usagef("--remote: the server tests the working tree as a pull request into the branch that it stands on, and plays no other event")
	case r.Secrets != "":
		return usagef("--remote: the server has secrets of its own; leave --secrets out")
	case r.NoCache:
		return usagef("--remote: the server keeps caches of its own; leave --no-cache out")
	}
	return nil
}

// elsewhere has the server build what is not pushed, and ends as it decides.
func (r *runHere) elsewhere(ctx, now context.Context, source *worktree.Server) error {
	base, err := source.PushedBase(ctx)
	if err != nil {
		return err
	}
	difference, err := source.Since(ctx, base.SHA)
	if err != nil {
		return err
	}
	return r.session(context.WithoutCancel(ctx), true, func(calls context.Context, conn grpc.ClientConnInterface) error {
		made, err := schedulerv1.NewBuildServiceClient(conn).CreateRemoteBuild(calls, &schedulerv1.CreateRemoteBuildRequest{
			Repository: source.Owner + "/" + source.Name, Branch: base.Branch, BaseSha: base.SHA, Difference: difference, Job: r.Job, Matrix: r.Matrix,
		})
		if err != nil {
			return err
		}
		b, differ := made.GetBuild(), "differ"
		if len(difference.GetChanges()) == 1 {
			differ = "differs"
		}
		fmt.Fprintf(r.errors, "forge run: %s, with %s that %s from %s of %s, at %s\n", //nolint:errcheck // nobody is there to read it
			wording.Short(b.GetSha()), wording.Count(len(difference.GetChanges()), "file"), differ, wording.Short(base.SHA), base.Branch, b.GetUrl())
		return follow{conn: conn, out: r.out, errors: r.errors}.verdict(calls, ctx, now, b.GetId())
	})
}
