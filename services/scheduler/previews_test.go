package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// previewed is the usual file with a preview for each pull request.
func previewed(changes ...func(*configv1.Destination)) *configv1.GetBuildConfigResponse {
	e := &configv1.Destination{Name: "preview", Preview: "preview-${pull_request}", Execute: script("./up"), Stop: script("./down")}
	e.Execute.Url = "https://pr-${pull_request}.example.org"
	for _, change := range changes {
		change(e)
	}
	return fileOf(e)
}

func withoutStop(e *configv1.Destination) { e.Stop = nil }

// inPreview is the newest build of an action for a preview; nil for none.
func inPreview(r *rig, action schedulerv1.Build_Action) *schedulerv1.Build {
	r.t.Helper()
	for _, b := range r.all() {
		if b.GetAction() == action {
			return b
		}
	}
	return nil
}

// offered waits for a deploy of a commit to its preview.
func offered(r *rig, sha string) *schedulerv1.Build {
	r.t.Helper()
	b := newestTo(r, "preview-1", sha)
	if b.GetAction() != schedulerv1.Build_ACTION_PREVIEW {
		r.t.Fatalf("no deploy of %s to its preview: %v", sha, r.all())
	}
	return b
}

// listedNames are the names of the environments in the lists.
func listedNames(r *rig) (names []string) {
	r.t.Helper()
	answer, err := r.places.ListEnvironments(r.t.Context(), &schedulerv1.ListEnvironmentsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range answer.GetEnvironments() {
		names = append(names, fmt.Sprintf("%s of #%d", e.GetName(), e.GetPullRequest()))
	}
	return names
}

// unlisted waits until no environment is in the lists.
func unlisted(r *rig) {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		if all := listedNames(r); len(all) > 0 {
			return fmt.Errorf("still there: %v", all)
		}
		return nil
	})
}

func TestAPreviewIsBuiltRebuiltAndTakenDown(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa", "bbb")
		test := r.built(opened(1, "aaa"))
		if b := newestTo(r, "preview-1", "aaa"); b != nil {
			t.Errorf("deployed before its tests: %v", b)
		}
		r.pass(test)
		first := offered(r, "aaa")
		if all := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries(); len(all) != 1 || all[0].GetBuildId() != first.GetId() ||
			did(all[0]) != "ada deploy by event preview-1" || all[0].GetDetail() != "aaa of #1 passed its tests" {
			t.Errorf("the audit log has %v", all)
		}
		u := r.attach(r.spec(first.GetId(), 1).Runner.Token)
		said := u.plan.GetEnvironment()
		if said["FORGE_ACTION"] != "deploy-preview-1" || said["FORGE_ENVIRONMENT"] != "preview-1" || said["FORGE_VERSION"] != "rc2" || u.plan.GetSteps()[0].GetRun() != "./up" {
			t.Errorf("%v", u.plan)
		}
		if first.GetContext() != "forge/deploy-preview-1" || first.GetEnvironmentUrl() != "https://pr-1.example.org" || first.GetRef() != "refs/pull/1/head" {
			t.Errorf("%v", first)
		}
		u.send(passing(1)...)
		r.becomes(first.GetId(), schedulerv1.Build_STATE_PASSED)
		if names := listedNames(r); !slices.Equal(names, []string{"preview-1 of #1"}) {
			t.Errorf("environments: %v", names)
		}

		r.pass(r.built(synchronize("aaa", "bbb", noon.Add(time.Minute))))
		second := offered(r, "bbb")
		r.pass(second.GetId())
		if b := r.build(first.GetId()); b.GetTakeDownTime() != nil {
			t.Errorf("what was replaced is taken down: %v", b)
		}

		r.send(closed("bbb", noon.Add(time.Hour)))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
		if all := ends(r); len(all) != 1 || all[0] != "ada take down by event preview-1: #1 was closed, "+stop.GetId() {
			t.Errorf("the audit log has %q", all)
		}
		if stop.GetSha() != "bbb" || stop.GetContext() != "forge/stop-preview-1" || stop.GetPullRequest() != 1 {
			t.Fatalf("%v", stop)
		}
		u = r.attach(r.spec(stop.GetId(), 1).Runner.Token)
		if u.plan.GetEnvironment()["FORGE_ACTION"] != "stop-preview-1" || u.plan.GetSteps()[0].GetRun() != "./down" {
			t.Errorf("%v", u.plan)
		}
		if names := listedNames(r); len(names) != 1 {
			t.Errorf("before it is down: %v", names)
		}
		u.send(passing(1)...)
		unlisted(r)
		if b := r.build(second.GetId()); b.GetTakeDownTime() == nil {
			t.Errorf("not taken down: %v", b)
		}
		kittest.Eventually(t, patience, func() error {
			if b := r.reporter.shows("bbb", "forge/deploy-preview-1").GetBuild(); b.GetTakeDownTime() == nil {
				return fmt.Errorf("the reporter has %v", b)
			}
			return nil
		})
	})
}

// What becomes of a preview when its pull request is closed, by how far its deploy was.
func TestAPreviewEndsWithItsPullRequest(t *testing.T) {
	const (
		untested = iota // its tests have not passed
		waits           // for a place
		runs
		deployed
		failed
	)
	ends := map[string]*eventv1.Event{
		"closed": closed("aaa", noon.Add(time.Hour)), "merged": mergedAs("main", "aaa", "m2"), "merged elsewhere": into("13.x", mergedAs("main", "aaa", "m2")),
	}
	for _, c := range []struct {
		name string
		at   int
		file *configv1.GetBuildConfigResponse
		down bool // something is run to take it down
	}{
		{"before its tests have passed", untested, previewed(), false},
		{"before its deploy has begun", waits, previewed(), false},
		{"while it is deployed", runs, previewed(), true},
		{"after it was deployed", deployed, previewed(), true},
		{"after its deploy has failed", failed, previewed(), true},
		{"while it is deployed, with nothing to run", runs, previewed(withoutStop), false},
		{"after it was deployed, with nothing to run", deployed, previewed(withoutStop), false},
	} {
		for how, end := range ends {
			t.Run(strings.ReplaceAll(c.name+", "+how, " ", "_"), func(t *testing.T) {
				r := sqliteRig(t)
				r.start()
				says(r, c.file, "aaa")
				r.config.set("m2", valid(&configv1.BuildConfig{Image: "a", Execute: script("true")}))
				r.config.set("13.x", branches("main"))
				test := r.built(opened(1, "aaa"))
				var b *schedulerv1.Build
				if c.at != untested {
					if c.at == waits {
						r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("busy") }) // no place becomes free
					}
					r.pass(test)
					b = offered(r, "aaa")
				}
				switch c.at {
				case runs:
					r.attach(r.spec(b.GetId(), 1).Runner.Token)
					r.becomes(b.GetId(), schedulerv1.Build_STATE_RUNNING)
				case deployed:
					r.pass(b.GetId())
				case failed:
					u := r.attach(r.spec(b.GetId(), 1).Runner.Token)
					u.send(began(1, 1), exited(2, 1, 3), over(3, schedulerv1.Ended_CAUSE_DONE))
					r.becomes(b.GetId(), schedulerv1.Build_STATE_FAILED)
				}
				r.send(end)
				stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
				if c.at == waits && stop != nil { // it had got its place, which is as well
					c.down = true
				}
				if (stop != nil) != c.down {
					t.Errorf("taken down by %v, want %v", stop, c.down)
				}
				if c.at == runs {
					if stop != nil && stop.GetState() != schedulerv1.Build_STATE_WAITING {
						t.Errorf("it does not wait for the deploy: %v", stop)
					}
					cancelledRun(r, b.GetId())
				}
				if stop != nil && c.at != waits {
					r.pass(stop.GetId())
				}
				if c.at != waits {
					unlisted(r)
				}
				builds := len(r.all())
				r.again(end)
				if len(r.all()) != builds {
					t.Errorf("once more: %v", r.all())
				}
			})
		}
	}
}

// cancelledRun ends a run that was asked to stop.
func cancelledRun(r *rig, id string) {
	r.t.Helper()
	u := r.reattach(r.spec(id, 1).Runner.Token)
	u.send(began(1, 1), over(2, schedulerv1.Ended_CAUSE_CANCELLED))
	r.becomes(id, schedulerv1.Build_STATE_CANCELLED)
}

// A deploy that still runs keeps its place: nothing is taken down under it, and a newer
// one waits, too.
func TestAPreviewIsTakenDownOnceItsDeployIsGone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa", "bbb")
		r.pass(r.built(opened(1, "aaa")))
		first := offered(r, "aaa").GetId()
		r.attach(r.spec(first, 1).Runner.Token)
		r.becomes(first, schedulerv1.Build_STATE_RUNNING)
		r.pass(r.built(synchronize("aaa", "bbb", noon.Add(time.Minute))))
		second := offered(r, "bbb")
		if second.GetState() != schedulerv1.Build_STATE_WAITING || second.GetReason() != schedulerv1.Build_REASON_ENVIRONMENT_BUSY {
			t.Errorf("%v", second)
		}
		r.send(closed("bbb", noon.Add(time.Hour)))
		if b := r.build(second.GetId()); b.GetState() != schedulerv1.Build_STATE_CANCELLED || b.GetMessage() != "#1 was closed" {
			t.Errorf("%v", b)
		}
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
		if stop.GetState() != schedulerv1.Build_STATE_WAITING || stop.GetSha() != "aaa" {
			t.Fatalf("%v", stop)
		}
		cancelledRun(r, first)
		if b := r.build(first); b.GetSupersededBy() != second.GetId() {
			t.Errorf("%v", b)
		}
		r.pass(stop.GetId())
		unlisted(r)
	})
}

// A pull request that is opened again has its preview again, at the very commit; one that
// is closed once more loses it once more.
func TestAPreviewComesBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa")
		r.pass(r.built(opened(1, "aaa")))
		r.pass(offered(r, "aaa").GetId())
		r.send(closed("aaa", noon.Add(time.Minute)))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP)
		r.attach(r.spec(stop.GetId(), 1).Runner.Token)
		r.send(reopened("aaa", noon.Add(2*time.Minute)))
		again := offered(r, "aaa")
		if again.GetState() != schedulerv1.Build_STATE_WAITING {
			t.Errorf("it does not wait for what takes it down: %v", again)
		}
		u := r.reattach(r.spec(stop.GetId(), 1).Runner.Token)
		u.send(passing(1)...)
		r.pass(again.GetId())
		if names := listedNames(r); len(names) != 1 {
			t.Errorf("environments: %v", names)
		}
		last := closed("aaa", noon.Add(3*time.Minute))
		last.DeliveryId = "last"
		r.send(last)
		second := inPreview(r, schedulerv1.Build_ACTION_STOP)
		if second.GetId() == stop.GetId() {
			t.Fatal("it is not taken down once more")
		}
		r.pass(second.GetId())
		unlisted(r)
		if b := r.build(again.GetId()); b.GetTakeDownTime() == nil {
			t.Errorf("%v", b)
		}
	})
}

// What was to be taken down when Forge was killed is taken down after.
func TestAPreviewIsTakenDownAfterForgeWasKilled(t *testing.T) {
	eachStopped(t, func(t *testing.T, r *rig) {
		r.start()
		says(r, previewed(), "aaa")
		r.pass(r.built(opened(1, "aaa")))
		b := offered(r, "aaa")
		r.attach(r.spec(b.GetId(), 1).Runner.Token)
		r.becomes(b.GetId(), schedulerv1.Build_STATE_RUNNING)
		end := closed("aaa", noon.Add(time.Minute))
		r.send(end)
		r.stop()
		r.start()
		if d := r.again(end); len(d.GetBuildIds()) > 0 && d.GetReason() == eventv1.Reason_REASON_BUILT {
			t.Errorf("once more: %v", d)
		}
		cancelledRun(r, b.GetId())
		r.pass(inPreview(r, schedulerv1.Build_ACTION_STOP).GetId())
		unlisted(r)
	})
}

// A teardown that failed leaves the preview in the lists, until it is run again.
func TestATeardownThatFailedIsRunAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa")
		r.pass(r.built(opened(1, "aaa")))
		deploy := offered(r, "aaa").GetId()
		r.pass(deploy)
		r.send(closed("aaa", noon.Add(time.Minute)))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP).GetId()
		u := r.attach(r.spec(stop, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(stop, schedulerv1.Build_STATE_FAILED)
		if names := listedNames(r); len(names) != 1 || r.build(deploy).GetTakeDownTime() != nil {
			t.Errorf("environments: %v", names)
		}
		if _, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: deploy}); err == nil || !strings.Contains(err.Error(), "came later") {
			t.Errorf("its deploy once more: %v", err)
		}
		answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: stop})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(answer.GetBuild().GetId())
		unlisted(r)
		if _, err := r.places.RollBackEnvironment(t.Context(), &schedulerv1.RollBackEnvironmentRequest{Repository: "Acme/shop", Environment: "preview-1", BuildId: deploy}); status.Convert(err).Message() != "#1 has no preview preview-1 any more" {
			t.Errorf("a roll back: %v", err)
		}
	})
}
