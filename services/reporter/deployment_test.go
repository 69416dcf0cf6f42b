package reporter

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

func (w *world) deploy(id, to string, state schedulerv1.Build_State) *schedulerv1.Build {
	b := like(w.build(state), state)
	b.Id, b.Context, b.Title, b.EnvironmentUrl = id, "forge/deploy-"+to, "Sell apples", "https://"+to+".example.com"
	b.Environment = to
	if state != queued && state != schedulerv1.Build_STATE_WAITING {
		lasting(b, 0)
	}
	return b
}

func (w *world) deployments() []githubsim.Deployment {
	w.t.Helper()
	list, err := w.sim.Deployments("octo", "shop")
	w.must(err)
	return list
}

func states(d githubsim.Deployment) string {
	var all []string
	for _, st := range d.Statuses {
		all = append(all, st.State)
	}
	return strings.Join(all, " ")
}

func (w *world) deploymentCalls() int {
	n := 0
	for _, c := range w.sim.Calls() {
		if strings.Contains(c.Route, "/deployments") {
			n++
		}
	}
	return n
}

func TestDeployIsRecordedInFourCalls(t *testing.T) {
	databases(t, func(t *testing.T, w *world, open func() *sqldb.DB) {
		s := w.reporter(open())
		for i, state := range []schedulerv1.Build_State{schedulerv1.Build_STATE_WAITING, queued, schedulerv1.Build_STATE_STARTING, running, good} {
			w.report(s, int64(i+1), w.deploy("d1", "staging", state))
			w.publishAll(s)
		}
		all := w.deployments()
		if len(all) != 1 || states(all[0]) != "queued in_progress success" || all[0].SHA != w.sha || all[0].Environment != "staging" ||
			all[0].Description != "Sell apples" {
			t.Fatalf("deployments %+v", all)
		}
		if last := all[0].Statuses[2]; last.LogURL != "http://forge.example/builds/b1" || last.EnvironmentURL != "https://staging.example.com" {
			t.Errorf("last status %+v", last)
		}
		if calls := w.deploymentCalls(); calls != 4 {
			t.Errorf("%d calls, want 4", calls)
		}
	})
}

func TestFastDeployIsRecordedOnceItHasEnded(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, w.deploy("d1", "staging", queued))
	w.report(s, 2, w.deploy("d1", "staging", running))
	w.report(s, 3, w.deploy("d1", "staging", bad))
	w.publishAll(s)
	if all := w.deployments(); len(all) != 1 || states(all[0]) != "failure" {
		t.Errorf("deployments %+v", all)
	}
}

func TestDeploymentIsMadeOnce(t *testing.T) {
	for name, trouble := range map[string]githubsim.Misbehaviour{
		"answer lost":            {Route: "POST /repos/{owner}/{repo}/deployments", Cut: true, CarriedOut: true, Times: 1},
		"lost":                   {Route: "POST /repos/{owner}/{repo}/deployments", Cut: true, Times: 1},
		"its first status fails": {Route: "POST /repos/{owner}/{repo}/deployments/{id}/statuses", Status: 502, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.reporter(sqlite(t))
			w.sim.Misbehave(trouble)
			w.report(s, 1, w.deploy("d1", "staging", running))
			w.publishAll(s)
			w.report(s, 2, w.deploy("d1", "staging", good))
			w.publishAll(s)
			if all := w.deployments(); len(all) != 1 || states(all[0]) != "in_progress success" {
				t.Errorf("deployments %+v", all)
			}
		})
	}
}

func TestNewerDeployReplacesTheOneBefore(t *testing.T) {
	for _, to := range []string{"staging", "production"} {
		t.Run(to, func(t *testing.T) {
			w := newWorld(t)
			s := w.reporter(sqlite(t))
			w.report(s, 1, w.deploy("d1", to, good))
			w.publishAll(s)
			w.sha = w.commit()
			w.report(s, 1, w.deploy("d2", to, good))
			w.publishAll(s)
			w.sha = w.commit()
			w.report(s, 1, w.deploy("d3", to, bad)) // replaces nothing
			w.publishAll(s)
			all := w.deployments()
			if len(all) != 3 || states(all[0]) != "success inactive" || states(all[1]) != "success" || states(all[2]) != "failure" {
				t.Errorf("deployments %+v", all)
			}
		})
	}
}

// GitHub leaves active what was deployed to an environment that is transient.
func TestAPreviewIsReplacedAndTakenDown(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	preview := func(id string, state schedulerv1.Build_State) *schedulerv1.Build {
		b := w.deploy(id, "preview-7", state)
		b.Action = schedulerv1.Build_ACTION_PREVIEW
		return b
	}
	w.report(s, 1, preview("d1", good))
	w.publishAll(s)
	w.sha = w.commit()
	w.report(s, 1, preview("d2", good))
	w.publishAll(s)
	stop := w.deploy("s1", "preview-7", good)
	stop.Action, stop.Context = schedulerv1.Build_ACTION_STOP, "forge/stop-preview-7"
	w.report(s, 1, stop)
	gone := preview("d2", good)
	gone.TakeDownTime = timestamppb.Now()
	w.report(s, 2, gone)
	w.publishAll(s)
	all := w.deployments()
	if len(all) != 2 || states(all[0]) != "success inactive" || states(all[1]) != "success inactive" || !all[0].Transient || !all[1].Transient {
		t.Errorf("deployments %+v", all)
	}
}

func TestDeployThatNeverBeganLeavesNoDeployment(t *testing.T) {
	w := newWorld(t)
	s := w.reporter(sqlite(t))
	w.report(s, 1, w.deploy("d1", "staging", queued))
	gone := w.deploy("d1", "staging", queued)
	gone.State, gone.Reason = schedulerv1.Build_STATE_CANCELLED, schedulerv1.Build_REASON_ALREADY_CONTAINED
	w.report(s, 2, gone)
	w.publishAll(s)
	if all := w.deployments(); len(all) != 0 {
		t.Errorf("deployments %+v", all)
	}
}
