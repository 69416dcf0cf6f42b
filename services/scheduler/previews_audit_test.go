package scheduler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/rpc"
)

// ends are what the audit log has of previews that were taken down, the oldest first: who,
// why, and the build.
func ends(r *rig) (all []string) {
	r.t.Helper()
	for _, e := range audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries() {
		if e.GetAction() == schedulerv1.AuditEntry_ACTION_TAKE_DOWN {
			all = append(all, did(e)+": "+e.GetDetail()+", "+e.GetBuildId())
		}
	}
	slices.Reverse(all)
	return all
}

// The audit log says once of each preview by what it ended, whether or not anything is run
// for that; of one that never came, nothing.
func TestTheEndOfAPreviewIsInTheAuditLog(t *testing.T) {
	both := func(changes ...func(*configv1.Destination)) *configv1.GetBuildConfigResponse {
		return previewed(append(changes, labelled("preview"))...)
	}
	const inTheWay = "closed, nothing to run, and its container is still to be removed"
	shut := sentBy("wes", closed("aaa", noon.Add(time.Hour)))
	for name, c := range map[string]struct {
		file     *configv1.GetBuildConfigResponse
		deployed bool
		end      *eventv1.Event
		want     string // without its build
	}{
		"closed":                    {both(), true, shut, "wes take down by event preview-1: #1 was closed"},
		"closed, nothing to run":    {both(withoutStop), true, shut, "wes take down by event preview-1: #1 was closed"},
		inTheWay:                    {both(withoutStop), true, shut, "wes take down by event preview-1: #1 was closed"},
		"merged":                    {both(), true, sentBy("mia", mergedAs("main", "aaa", "m2")), "mia take down by event preview-1: #1 was merged"},
		"without its label":         {both(), true, sentBy("tom", marked("unlabeled", "preview", "aaa", noon.Add(time.Hour), false)), "tom take down by event preview-1: #1 is not to have this preview any more"},
		"closed while it is tested": {both(), false, shut, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			says(r, c.file, "aaa")
			r.config.set("m2", valid(&configv1.BuildConfig{Image: "a", Execute: script("true")}))
			begin := opened(1, "aaa")
			pull(begin).Labels = []string{"preview"}
			test := r.built(r.github.shows(begin))
			of := ""
			if c.deployed {
				r.pass(test)
				of = offered(r, "aaa").GetId()
				if name == inTheWay {
					r.engine.set(func(e *memoryEngine) { e.stopErr = errors.New("no answer") })
				}
				r.pass(of)
			}
			r.send(r.github.shows(c.end))
			if stop := inPreview(r, schedulerv1.Build_ACTION_STOP); stop != nil {
				of = stop.GetId()
			}
			r.again(c.end)
			var want []string
			if c.want != "" {
				want = []string{c.want + ", " + of}
			}
			if all := ends(r); !slices.Equal(all, want) {
				t.Errorf("the audit log has %q, want %q", all, want)
			}
			if strings.HasPrefix(name, "closed, nothing to run") != (inPreview(r, schedulerv1.Build_ACTION_STOP) == nil) && c.deployed {
				t.Error("what takes it down is run, or is not")
			}
		})
	}
}

// A deploy to a preview that is cut short is taken down, too, and who runs again what failed
// to take it down is named.
func TestWhoTakesAPreviewDownAgainIsInTheAuditLog(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		says(r, previewed(), "aaa")
		r.pass(r.built(opened(1, "aaa")))
		deploy := offered(r, "aaa").GetId()
		r.attach(r.spec(deploy, 1).Runner.Token)
		r.becomes(deploy, schedulerv1.Build_STATE_RUNNING)
		r.send(closed("aaa", noon.Add(time.Minute)))
		stop := inPreview(r, schedulerv1.Build_ACTION_STOP).GetId()
		cancelledRun(r, deploy)
		u := r.attach(r.spec(stop, 1).Runner.Token)
		u.send(began(1, 1), exited(2, 1, 1), over(3, schedulerv1.Ended_CAUSE_DONE))
		r.becomes(stop, schedulerv1.Build_STATE_FAILED)
		asWes := rpc.From(rpc.For(t.Context(), "wes"), rpc.Origin{Way: "page", Credential: "session"})
		answer, err := r.people.RetryBuild(asWes, &schedulerv1.RetryBuildRequest{BuildId: stop})
		if err != nil {
			t.Fatal(err)
		}
		r.pass(answer.GetBuild().GetId())
		if all := ends(r); !slices.Equal(all, []string{"ada take down by event preview-1: #1 was closed, " + stop}) {
			t.Errorf("the audit log has %q", all)
		}
		newest := audited(r, &schedulerv1.ListAuditEntriesRequest{}).GetEntries()[0]
		if did(newest) != "wes retry by page session preview-1" || newest.GetDetail() != "what takes it down was asked for again" || newest.GetBuildId() != answer.GetBuild().GetId() {
			t.Errorf("%v", newest)
		}
	})
}
