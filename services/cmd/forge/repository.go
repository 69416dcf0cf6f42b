package main

import (
	"context"
	"time"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// heardWithin leaves Forge time to ask GitHub about a repository.
const heardWithin = 10 * time.Second

// heardOf is err or, where nothing is found of a repository, that Forge's App has none of
// that name: an empty list does not tell that from one where nothing has happened. Forge is
// asked only then, by a call that whoever may list may make. What it cannot say now changes
// nothing.
func heardOf(ctx context.Context, conn grpc.ClientConnInterface, repository string, found int, err error) error {
	if err != nil || found > 0 || repository == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, heardWithin)
	defer cancel()
	_, err = schedulerv1.NewManualServiceClient(conn).GetManual(ctx, &schedulerv1.GetManualRequest{Repository: repository})
	if kind := kindOf(err); kind != fault.NotFound && kind != fault.Invalid { // the latter is no owner/name
		return nil
	}
	return err
}
