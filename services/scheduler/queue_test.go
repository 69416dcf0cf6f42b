package scheduler

import (
	"context"
	"errors"
	"fmt"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

func TestCapacityBoundsWhatRunsAndDeploysGoFirst(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first, second := r.built(opened(1, "a1")), r.built(opened(2, "a2"))
		r.spec(first, 1)
		r.spec(second, 1)
		third := r.built(opened(3, "a3"))
		deploy := r.built(mergedInto(4, "main", "m4"))
		for _, id := range []string{third, deploy} {
			if b := r.build(id); b.GetState() != schedulerv1.Build_STATE_QUEUED {
				t.Errorf("%s is %v while two others hold both places", b.GetContext(), b.GetState())
			}
		}
		r.pass(first)
		r.spec(deploy, 1)
		if b := r.build(third); b.GetState() != schedulerv1.Build_STATE_QUEUED {
			t.Errorf("the test is %v before a place is free", b.GetState())
		}
		r.pass(second)
		r.spec(third, 1)
	})
}

func TestOneDeployAtATimePerEnvironmentInOrder(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		one, two, three := r.built(mergedInto(1, "main", "m1")), r.built(mergedInto(2, "main", "m2")), r.built(mergedInto(3, "main", "m3"))
		production := r.built(mergedInto(4, "production", "p1"))
		r.spec(production, 1) // another environment, not held up
		for _, id := range []string{two, three} {
			b := r.build(id)
			if b.GetState() != schedulerv1.Build_STATE_WAITING || b.GetReason() != schedulerv1.Build_REASON_ENVIRONMENT_BUSY || b.GetMessage() != "staging is deploying build "+one {
				t.Errorf("%v", b)
			}
		}
		r.pass(one)
		r.spec(two, 1)
		if b := r.build(three); b.GetMessage() != "staging is deploying build "+two {
			t.Errorf("%q", b.GetMessage())
		}
		if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: three}); err != nil {
			t.Fatal(err)
		}
		r.becomes(three, schedulerv1.Build_STATE_CANCELLED)
		four := r.built(mergedInto(5, "main", "m5"))
		r.pass(two)
		r.pass(four)
		kittest.Eventually(t, patience, func() error {
			r.reporter.mu.Lock()
			defer r.reporter.mu.Unlock()
			last := len(r.reporter.promotions) - 1
			if last < 0 || r.reporter.promotions[last].GetSha() != "m5" {
				return fmt.Errorf("promotions %v", r.reporter.promotions)
			}
			if p := r.reporter.promotions[last]; p.GetHead() != "main" || p.GetBase() != "production" || p.GetBuildUrl() != "https://forge.example/builds/"+four {
				t.Errorf("promotion %v", p)
			}
			return nil
		})
	})
}

// of has an event come from another repository.
func of(repositoryID int64, e *eventv1.Event) *eventv1.Event {
	e.Repository = &eventv1.Repository{Id: repositoryID, Owner: "Acme", Name: fmt.Sprintf("shop-%d", repositoryID)}
	pull(e).Head.Repository = e.GetRepository()
	return e
}

func TestRepositoryWithFewestPlacesGoesFirst(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 3
		r.start()
		greedy := make([]string, 5)
		for n := range greedy {
			greedy[n] = r.built(of(1, opened(int32(n)+1, fmt.Sprintf("a%d", n))))
		}
		r.spec(greedy[2], 1)
		late, later := r.built(of(2, opened(1, "b1"))), r.built(of(3, opened(1, "c1")))
		r.pass(greedy[0])
		r.spec(late, 1)
		r.pass(greedy[1])
		r.spec(later, 1)
		if b := r.build(greedy[3]); b.GetState() != schedulerv1.Build_STATE_QUEUED {
			t.Errorf("the repository with a place is served before those without: %v", b.GetState())
		}
		r.pass(late)
		r.spec(greedy[3], 1)
	})
}

func TestDeploysGoBeforeMergeGroupsBeforePullRequests(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		first := r.built(opened(1, "a1"))
		r.spec(first, 1)
		test, deploy := r.built(opened(2, "a2")), r.built(mergedInto(3, "main", "m3"))
		group := &store.Build{Build: &schedulerv1.Build{
			Id: "group", Repository: repository(), Action: schedulerv1.Build_ACTION_TEST, Sha: "g4", Ref: "refs/heads/gh-readonly-queue/main/pr-4-g4",
			Context: "forge/test", State: schedulerv1.Build_STATE_QUEUED,
		}, Config: usual(), Due: noon}
		if err := r.service.store.Write(t.Context(), func(ctx context.Context, t *store.Tx) error { return t.AddBuild(ctx, group) }); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{first, deploy, "group", test} {
			r.pass(id)
		}
	})
}

func TestReplicasShareOneQueue(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const builds = 24
		deps := r.deps
		deps.DB = r.open()
		other, err := New(deps)
		if err != nil {
			t.Fatal(err)
		}
		ctx, halt := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- other.Run(ctx) }()
		defer func() {
			halt()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		for n := range int32(builds) {
			r.built(opened(n+1, fmt.Sprintf("a%d", n)))
		}
		ended := map[string]bool{}
		for len(ended) < builds {
			kittest.Eventually(t, patience, func() error {
				other.attempts.Starts.Wake()
				if live := r.engine.attempts(); len(live) > r.deps.Capacity {
					t.Fatalf("%d containers at once, capacity %d: %v", len(live), r.deps.Capacity, live)
				} else if len(live) > 0 {
					return nil
				}
				return errors.New("nothing runs")
			})
			for _, attempt := range r.engine.attempts() {
				id, number, _ := store.KnownAttempt(attempt)
				if number != 1 || ended[id] {
					t.Fatalf("%s was started a second time", attempt)
				}
				r.pass(id)
				ended[id] = true
			}
			kittest.Eventually(t, patience, func() error {
				for _, attempt := range r.engine.attempts() {
					if id, _, _ := store.KnownAttempt(attempt); ended[id] {
						return fmt.Errorf("%s is still there", attempt)
					}
				}
				return nil
			})
		}
	})
}
