package scheduler

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Repositories are found once each, by name, with what was built there last.
func TestRepositoriesAreListedByName(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		if answer, err := r.builds.ListRepositories(t.Context(), &schedulerv1.ListRepositoriesRequest{}); err != nil || len(answer.GetRepositories()) != 0 {
			t.Errorf("none: %v, %v", answer, err)
		}
		var want []string
		for n := range 5 {
			event := opened(int32(n+1), fmt.Sprintf("a%d", n))
			of := proto.CloneOf(event.GetRepository())
			of.Id, of.Name = int64(100+n), fmt.Sprintf("Shop-%d", 4-n)
			pull := event.GetPullRequest().GetPullRequest()
			event.Repository, pull.Head.Repository, pull.Base.Repository = of, of, of
			r.built(event)
			want = append(want, of.GetName())
		}
		slices.Sort(want)
		var got []string
		for request := (&schedulerv1.ListRepositoriesRequest{PageSize: 2}); ; {
			answer, err := r.builds.ListRepositories(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range answer.GetRepositories() {
				got = append(got, one.GetRepository().GetName())
				if one.GetNewestBuild().GetRepository().GetName() != one.GetRepository().GetName() {
					t.Errorf("%v has the build of another", one)
				}
			}
			if request.PageToken = answer.GetNextPageToken(); request.GetPageToken() == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
