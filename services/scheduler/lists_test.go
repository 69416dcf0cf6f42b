package scheduler

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// listOf names the builds, or jobs, that a list has, page by page.
func listOf(r *rig, req *schedulerv1.ListBuildsRequest) (ids []string) {
	r.t.Helper()
	req.PageSize = 2
	for {
		answer, err := r.builds.ListBuilds(r.t.Context(), req)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, b := range answer.GetBuilds() {
			ids = append(ids, b.GetId())
		}
		if req.PageToken = answer.GetNextPageToken(); req.GetPageToken() == "" {
			return ids
		}
	}
}

// by has somebody else cause an event.
func by(login string, e *eventv1.Event) *eventv1.Event {
	e.Sender = &eventv1.Account{Login: login}
	return e
}

func TestListsAreFilteredByBranchBaseActorAndJob(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, sha := range []string{"aaa", "bbb", "ccc", "ddd", "eee"} {
			r.config.set(sha, ofJobs(job("lint"), job("test (1.26)")))
		}
		fork := by("mallory", opened(2, "bbb"))
		fork.GetPullRequest().GetPullRequest().Head.Repository = &eventv1.Repository{Id: 8, Owner: "mallory", Name: "shop"}
		till, forked := r.built(opened(1, "aaa")), r.send(fork).GetBuildIds()[0]
		pushed := r.built(by("Grace", pushedTo("refs/heads/main", "ccc")))
		tagged := r.built(pushedTo("refs/tags/v1", "ddd"))
		merged := r.built(mergedInto(3, "main", "eee"))
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: till}); err != nil {
			t.Fatal(err)
		}
		r.becomes(till, schedulerv1.Build_STATE_CANCELLED)
		again, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: till})
		if err != nil {
			t.Fatal(err)
		}
		retried := again.GetBuild().GetId()
		branches := map[string]string{till: "till", retried: "till", forked: "mallory:till", pushed: "main", tagged: "", merged: "main"}
		for id, want := range branches {
			if got := r.build(id).GetBranch(); got != want {
				t.Errorf("%s is of branch %q, want %q", r.build(id).GetRef(), got, want)
			}
		}
		const shop = "Acme/Shop"
		cancelled := []schedulerv1.Build_State{schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_STATE_CANCELLED}
		for name, c := range map[string]struct {
			req  *schedulerv1.ListBuildsRequest
			want []string
		}{
			"all":                       {&schedulerv1.ListBuildsRequest{}, []string{retried, merged, tagged, pushed, forked, till}},
			"branch":                    {&schedulerv1.ListBuildsRequest{Repository: shop, Branch: "main"}, []string{merged, pushed}},
			"branch, state":             {&schedulerv1.ListBuildsRequest{Repository: shop, Branch: "till", States: cancelled}, []string{till}},
			"branch of a fork":          {&schedulerv1.ListBuildsRequest{Repository: shop, Branch: "mallory:till"}, []string{forked}},
			"branch, pull request":      {&schedulerv1.ListBuildsRequest{Repository: shop, Branch: "till", PullRequest: 2}, nil},
			"base":                      {&schedulerv1.ListBuildsRequest{Repository: shop, BaseRef: "main"}, []string{retried, merged, forked, till}},
			"base, branch":              {&schedulerv1.ListBuildsRequest{Repository: shop, BaseRef: "main", Branch: "main"}, []string{merged}},
			"actor, whatever its case":  {&schedulerv1.ListBuildsRequest{Actor: "grace"}, []string{pushed}},
			"actor, repository, branch": {&schedulerv1.ListBuildsRequest{Repository: shop, Actor: "GRACE", Branch: "main"}, []string{pushed}},
			"actor, another branch":     {&schedulerv1.ListBuildsRequest{Repository: shop, Actor: "grace", Branch: "till"}, nil},
			"commit, actor":             {&schedulerv1.ListBuildsRequest{Sha: "bbb", Actor: "ada"}, nil},
			"states that are none":      {&schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{99, 0}}, nil},
			"job":                       {&schedulerv1.ListBuildsRequest{Repository: shop, Job: "test (1.26)", Branch: "main"}, []string{merged + "-2", pushed + "-2"}},
			"job, actor":                {&schedulerv1.ListBuildsRequest{Repository: shop, Job: "lint", Actor: "Mallory"}, []string{forked + "-1"}},
			"job, commit, state":        {&schedulerv1.ListBuildsRequest{Repository: shop, Job: "lint", Sha: "aaa", States: cancelled}, []string{till + "-1"}},
			"environment":               {&schedulerv1.ListBuildsRequest{Repository: shop, Environment: "staging"}, []string{merged}},
			"another environment":       {&schedulerv1.ListBuildsRequest{Repository: shop, Environment: "production"}, nil},
			"no SQL":                    {&schedulerv1.ListBuildsRequest{Repository: shop, Branch: "' OR 1=1 --"}, nil},
		} {
			if got := listOf(r, c.req); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		for text, req := range map[string]*schedulerv1.ListBuildsRequest{
			"branch needs the repository, as owner/name":                                                                     {Branch: "main"},
			"base_ref needs the repository, as owner/name":                                                                   {BaseRef: "main"},
			"job needs the repository, as owner/name":                                                                        {Job: "lint"},
			"environment needs the repository, as owner/name":                                                                {Environment: "staging"},
			`environment "the moon": expected a name such as staging or production: small letters, digits and -, 50 at most`: {Repository: shop, Environment: "the moon"},
		} {
			if _, err := r.builds.ListBuilds(t.Context(), req); status.Code(err) != codes.InvalidArgument || err.Error() != text {
				t.Errorf("err = %v, want %s", err, text)
			}
		}
	})
}

// Builds of a Forge that knew nothing of these filters are found by them after an upgrade.
func TestBuildsOfAnOlderForgeAreFoundByTheNewFilters(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", ofJobs(job("lint")))
		pushed := r.built(pushedTo("refs/heads/main", "aaa"))
		r.pass(pushed + "-1")
		r.becomes(pushed, schedulerv1.Build_STATE_PASSED)
		before, err := r.builds.GetBuildStatistics(t.Context(), &schedulerv1.GetBuildStatisticsRequest{Repository: "acme/shop", Days: 1})
		if err != nil {
			t.Fatal(err)
		}
		err = r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error {
			return t.Exec(ctx, `UPDATE builds SET branch = NULL, base_ref = '', actor = '', job = '', end_day = 0, duration = 0`)
		})
		if err != nil {
			t.Fatal(err)
		}
		main := &schedulerv1.ListBuildsRequest{Repository: "acme/shop", Branch: "main"}
		if got := listOf(r, main); got != nil {
			t.Fatalf("the test does not play an older Forge: %v", got)
		}
		if err := r.service.store.FillBuilds(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := listOf(r, main); !slices.Equal(got, []string{pushed}) {
			t.Errorf("branch: %v", got)
		}
		if got := listOf(r, &schedulerv1.ListBuildsRequest{Repository: "acme/shop", Job: "lint", Actor: "ada"}); !slices.Equal(got, []string{pushed + "-1"}) {
			t.Errorf("job: %v", got)
		}
		after, err := r.builds.GetBuildStatistics(t.Context(), &schedulerv1.GetBuildStatisticsRequest{Repository: "acme/shop", Days: 1})
		if err != nil {
			t.Fatal(err)
		}
		kittest.Want(t, after, before)
	})
}

func TestStatisticsCountBuildsByTheDayTheyEndedOn(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		// The first command begins a second after noon.
		for n, minutes := range []int{1, 1, 2} {
			id := r.built(opened(int32(n+1), fmt.Sprintf("passes-%d", n)))
			r.clock.Advance(time.Duration(minutes) * time.Minute)
			r.pass(id)
		}
		failed := r.built(opened(4, "fails"))
		r.fail(failed, 1, 3)
		r.becomes(failed, schedulerv1.Build_STATE_FAILED)
		r.config.set("broken", &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{Problems: []*configv1.ConfigInvalid_Problem{{Line: 1, Column: 1, Message: "no"}}}}})
		r.send(opened(5, "broken"))
		r.clock.Advance(24 * time.Hour)
		deployed := r.built(mergedInto(6, "main", "merged"))
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: deployed}); err != nil {
			t.Fatal(err)
		}
		r.becomes(deployed, schedulerv1.Build_STATE_CANCELLED)
		r.built(opened(7, "has not ended"))
		of := func(req *schedulerv1.GetBuildStatisticsRequest) []*schedulerv1.BuildDay {
			req.Repository = "Acme/shop"
			answer, err := r.builds.GetBuildStatistics(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			return answer.GetDays()
		}
		first := &schedulerv1.BuildDay{Date: "2026-11-23", Passed: 3, Failed: 1, Errored: 1, MedianDuration: durationpb.New(119 * time.Second)}
		kittest.Want(t, of(&schedulerv1.GetBuildStatisticsRequest{Days: 3}), []*schedulerv1.BuildDay{
			{Date: "2026-11-22"}, first, {Date: "2026-11-24", Cancelled: 1},
		})
		tests := []schedulerv1.Build_Action{schedulerv1.Build_ACTION_TEST, schedulerv1.Build_ACTION_PUSH}
		kittest.Want(t, of(&schedulerv1.GetBuildStatisticsRequest{Days: 2, Actions: tests}), []*schedulerv1.BuildDay{first, {Date: "2026-11-24"}})
		for asked, want := range map[int32]int{0: 30, 1: 1, 90: 90, 91: 90} {
			if days := of(&schedulerv1.GetBuildStatisticsRequest{Days: asked}); len(days) != want || days[want-1].GetDate() != "2026-11-24" {
				t.Errorf("asked for %d: %d days up to %v", asked, len(days), days[len(days)-1])
			}
		}
		for text, req := range map[string]*schedulerv1.GetBuildStatisticsRequest{
			"repository: which one, as owner/name":      {},
			"days is -1: expected 1 to 90, or 0 for 30": {Repository: "acme/shop", Days: -1},
		} {
			if _, err := r.builds.GetBuildStatistics(t.Context(), req); status.Code(err) != codes.InvalidArgument || err.Error() != text {
				t.Errorf("err = %v, want %s", err, text)
			}
		}
	})
}
