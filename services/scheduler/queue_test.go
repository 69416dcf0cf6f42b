package scheduler

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

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
		// Wherever it is told of, it is told why: in lists, and to GitHub.
		listed, err := r.builds.ListBuilds(t.Context(), &schedulerv1.ListBuildsRequest{States: []schedulerv1.Build_State{schedulerv1.Build_STATE_QUEUED}})
		if err != nil || len(listed.GetBuilds()) != 2 || listed.GetBuilds()[0].GetReason() != schedulerv1.Build_REASON_CAPACITY {
			t.Errorf("%v, %v", listed, err)
		}
		if told := r.shown("a3", "forge/test", schedulerv1.Build_STATE_QUEUED); told.GetReason() != schedulerv1.Build_REASON_CAPACITY {
			t.Errorf("the reporter is told %v", told)
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

// What is run again goes before a first run of the same repository, and takes nothing
// of the fair share of another.
func TestWhatIsRunAgainGoesFirstInItsRepositoryAlone(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		failed := r.built(of(1, opened(1, "a1")))
		r.fail(failed, 1, 1)
		running := r.built(of(1, opened(2, "a2")))
		r.spec(running, 1)
		first, other := r.built(of(1, opened(3, "a3"))), r.built(of(2, opened(1, "b1")))
		answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: failed})
		if err != nil {
			t.Fatal(err)
		}
		again := answer.GetBuild().GetId()
		order := []string{again, first, other} // once no repository has a place, the one with the oldest build is next
		for n, id := range order {
			if at := r.build(id).GetLine(); at.GetPlace() != int32(n)+1 || at.GetCapacity() != 1 {
				t.Errorf("the build that is placed as number %d stands at %v", n+1, at)
			}
		}
		r.pass(running)
		for _, id := range order {
			r.pass(id)
		}
	})
}

func TestExpeditedBuildGoesBeforeAll(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		running := r.built(opened(1, "a1"))
		r.spec(running, 1)
		deploy, test, late := r.built(mergedInto(2, "main", "m2")), r.built(opened(3, "a3")), r.built(opened(4, "a4"))
		expedite := func(id string) (*schedulerv1.Build, error) {
			answer, err := r.builds.ExpediteBuild(t.Context(), &schedulerv1.ExpediteBuildRequest{BuildId: id})
			return answer.GetBuild(), err
		}
		for range 2 {
			if b, err := expedite(late); err != nil || b.GetLine().GetPlace() != 1 || b.GetExpeditedBy() != administrator {
				t.Fatalf("%v, %v", b, err)
			}
		}
		if _, err := expedite(running); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("what has a place is put first: %v", err)
		}
		if _, err := expedite("nothing"); status.Code(err) != codes.NotFound {
			t.Errorf("a build that is not there is put first: %v", err)
		}
		for _, id := range []string{running, late, deploy, test} {
			r.pass(id)
		}
		if _, err := expedite(late); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("what has ended is put first: %v", err)
		}
	})
}

// The jobs of an expedited build go before all, those that wait for others too.
func TestJobsOfAnExpeditedBuildGoFirst(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		running := r.built(opened(1, "a1"))
		r.spec(running, 1)
		test := r.built(opened(2, "a2"))
		r.config.set("a3", ofJobs(job("lint"), job("dist", needs("lint"))))
		whole := r.built(opened(3, "a3"))
		if at := r.build(whole).GetLine(); at.GetPlace() != 2 {
			t.Errorf("a build whose first job is second in line stands at %v", at)
		}
		defer func() {
			if all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries(); len(all) != 1 || all[0].GetAction() != schedulerv1.AuditEntry_ACTION_EXPEDITE || all[0].GetBuildId() != whole {
				t.Errorf("the audit log has %v", all)
			}
		}()
		if _, err := r.builds.ExpediteBuild(t.Context(), &schedulerv1.ExpediteBuildRequest{BuildId: whole}); err != nil {
			t.Fatal(err)
		}
		if at := r.build(whole).GetLine(); at.GetPlace() != 1 {
			t.Errorf("put first, it stands at %v", at)
		}
		for _, id := range []string{running, store.JobID(whole, 1), store.JobID(whole, 2), test} {
			r.pass(id)
		}
	})
}

// When a build is placed is told by how long those of its kind took.
func TestPlaceInLineHasAnEstimate(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.deps.Capacity = 1
		r.start()
		first := r.built(opened(1, "a1"))
		r.spec(first, 1)
		second := r.built(opened(2, "a2"))
		if at := r.build(second).GetLine(); at.GetPlace() != 1 || at.GetEstimateTime() != nil {
			t.Errorf("with nothing to tell from, it says %v", at)
		}
		r.clock.Advance(4 * time.Minute)
		r.pass(first)
		ended := r.build(first)
		took := ended.GetEndTime().AsTime().Sub(ended.GetStartTime().AsTime())
		if took <= 0 {
			t.Fatalf("a build took %v", took)
		}
		r.spec(second, 1)
		strange, third := r.built(of(2, opened(1, "b1"))), r.built(opened(3, "a3"))
		placed := r.build(second).GetPlaceTime().AsTime()
		fourth := r.built(opened(4, "a4"))
		for id, want := range map[string]time.Duration{strange: took, third: took, fourth: 2 * took} { // nothing is known of the strange one
			if at := r.build(id).GetLine(); at.GetEstimateTime().AsTime().Sub(placed).Truncate(time.Second) != want {
				t.Errorf("%v, want %v after %v", at, want, placed)
			}
		}
		r.clock.Advance(time.Hour) // what runs takes longer than it uses to
		if at := r.build(third).GetLine(); !at.GetEstimateTime().AsTime().Equal(r.clock.Now()) {
			t.Errorf("what is overdue may end at any time: %v", at)
		}
	})
}

// Who is told when a build is placed can rely on it, or an operator sees that nobody can.
func TestEstimatesThatWereWrongAreCounted(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		reader := sdkmetric.NewManualReader()
		r.deps.Meter, r.deps.Capacity = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), 1
		r.start()
		const usual = time.Hour
		number := int32(0)
		build := func() string {
			number++
			return r.built(opened(number, fmt.Sprintf("a%d", number)))
		}
		// run has a build run for so long, and something done while it begins to.
		run := func(id string, takes time.Duration, meanwhile func()) {
			t.Helper()
			u := r.attach(r.spec(id, 1).Runner.Token)
			all := passing(int32(len(u.plan.GetSteps())))
			all[0].Time = timestamppb.New(r.clock.Now())
			u.send(all[0])
			u.acked(1)
			meanwhile()
			r.clock.Advance(takes)
			u.send(all[1:]...)
			if err := u.refused(); err != nil {
				t.Fatalf("run of %s: %v", id, err)
			}
		}
		first := build()
		second, third, fourth, fifth, sixth := build(), build(), build(), build(), build()
		told := func(id string, want time.Duration) func() {
			return func() {
				t.Helper()
				for range 2 { // later nothing else is counted
					if in := r.build(id).GetLine().GetEstimateTime().AsTime().Sub(r.clock.Now()); in < want-time.Minute || in > want+time.Minute {
						t.Errorf("build %s is said to be placed in %v, want %v", id, in, want)
					}
				}
			}
		}
		run(first, usual, func() {
			if at := r.build(second).GetLine(); at.GetEstimateTime() != nil {
				t.Errorf("with nothing to tell from, it says %v", at)
			}
		})
		run(second, usual-10*time.Minute, told(third, usual))
		run(third, 0, told(fourth, usual-10*time.Minute))
		run(fourth, 3*usual, told(fifth, usual-10*time.Minute))
		run(fifth, 0, func() {})
		r.spec(sixth, 1)
		for outcome, want := range map[string]float64{"right": 1, "early": 1, "late": 1} {
			if got := kittest.Metric(t, reader, "forge.scheduler.estimates", "outcome="+outcome); got != want {
				t.Errorf("%v estimates were %s, want %v", got, outcome, want)
			}
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
