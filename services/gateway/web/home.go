package web

import (
	"context"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// How many builds the home page shows of each kind.
const shownNow, shownNewest = 25, 15

// homePage is what the home page shows.
type homePage struct {
	Version, URL string
	// Known is that whoever looks may see builds.
	Known bool
	// Unavailable is that nobody can tell.
	Unavailable              bool
	Running, Waiting, Newest []*schedulerv1.Build
	MoreRunning, MoreWaiting bool
}

func (p *Pages) home(w http.ResponseWriter, r *http.Request) {
	shown := homePage{Version: p.deps.Version, URL: strings.TrimSuffix(p.deps.ExternalURL, "/"), Known: true}
	list := func(ctx context.Context, size int32, states ...schedulerv1.Build_State) ([]*schedulerv1.Build, bool, error) {
		answer, err := p.builds.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{PageSize: size, States: states})
		return answer.GetBuilds(), answer.GetNextPageToken() != "", err
	}
	asking, ctx := errgroup.WithContext(r.Context())
	asking.Go(func() (err error) {
		shown.Running, shown.MoreRunning, err = list(ctx, shownNow, schedulerv1.Build_STATE_RUNNING, schedulerv1.Build_STATE_STARTING)
		return err
	})
	asking.Go(func() (err error) {
		shown.Waiting, shown.MoreWaiting, err = list(ctx, shownNow, schedulerv1.Build_STATE_QUEUED, schedulerv1.Build_STATE_WAITING, schedulerv1.Build_STATE_BLOCKED)
		return err
	})
	asking.Go(func() (err error) {
		shown.Newest, _, err = list(ctx, shownNewest)
		return err
	})
	if err := asking.Wait(); err != nil {
		shown.Known = false
		shown.Unavailable = !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.Denied)
		if shown.Unavailable && r.Context().Err() == nil {
			p.deps.Log.WarnContext(r.Context(), "ListBuilds failed; the home page shows no builds", "error", err)
		}
	}
	p.render(w, r, http.StatusOK, "home.html", shown)
}
