package scheduler

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

func published(tag string, prerelease bool) *eventv1.Event {
	return happened("release", "published", &eventv1.ReleaseEvent{ReleaseId: 8, Tag: tag, Name: "A till", Prerelease: prerelease})
}

// Releases that a file asks for, with what comes near them. The file is that of the
// tag's commit.
func TestReleasesAreBuiltAsForgeYmlNamesThem(t *testing.T) {
	publish := &configv1.Pipeline{Commands: []*configv1.Command{{Name: "publish", Run: "make publish"}}}
	file := func(r *configv1.Release) *configv1.GetBuildConfigResponse {
		config := usual()
		config.Release = r
		return valid(config)
	}
	full := false
	for name, c := range map[string]struct {
		event  *eventv1.Event
		config *configv1.GetBuildConfigResponse
		reason eventv1.Reason
		text   string
	}{
		"any":                      {published("v1.2", false), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_BUILT, "built"},
		"a prerelease":             {published("v1.2", true), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_BUILT, "built"},
		"named":                    {published("v1.2", false), file(&configv1.Release{Tags: []string{"v*"}, Execute: publish}), eventv1.Reason_REASON_BUILT, "built"},
		"full, and only these":     {published("v1.2", false), file(&configv1.Release{Prereleases: &full, Execute: publish}), eventv1.Reason_REASON_BUILT, "built"},
		"prerelease, not these":    {published("v1.2", true), file(&configv1.Release{Prereleases: &full, Execute: publish}), eventv1.Reason_REASON_NOT_ADDRESSED, "ignored: v1.2 is a prerelease"},
		"not named":                {published("v1.2", false), file(&configv1.Release{Tags: []string{"V*", "cli/*", "v1"}, Execute: publish}), eventv1.Reason_REASON_BRANCH_IGNORED, "ignored: release.tags in .forge.yml does not name v1.2"},
		"a slash":                  {published("cli/v1", false), file(&configv1.Release{Tags: []string{"*"}, Execute: publish}), eventv1.Reason_REASON_BRANCH_IGNORED, "ignored: release.tags in .forge.yml does not name cli/v1"},
		"nothing asked for":        {published("v1.2", false), valid(usual()), eventv1.Reason_REASON_NOTHING_TO_RUN, "ignored: nothing to run for release in .forge.yml"},
		"a push of the tag alone":  {pushedTo("refs/tags/v1.2", "tagged"), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_NOTHING_TO_RUN, "ignored: nothing to run for push in .forge.yml"},
		"no such tag":              {published("gone", false), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_GONE, "ignored: the tag gone is gone from GitHub"},
		"without a tag":            {published("", false), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_MALFORMED, "malformed: a release without a repository or a tag"},
		"a draft":                  {happened("release", "published", &eventv1.ReleaseEvent{Tag: "v1.2", Draft: true}), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_NOT_ADDRESSED, "ignored: the release of v1.2 is a draft"},
		"another action":           {happened("release", "released", &eventv1.ReleaseEvent{Tag: "v1.2"}), file(&configv1.Release{Execute: publish}), eventv1.Reason_REASON_ACTION_IGNORED, "ignored: action released"},
		"no file at that commit":   {published("v1.2", false), &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{}}, eventv1.Reason_REASON_NO_CONFIG, "no .forge.yml at tagged"},
		"a prerelease by its name": {published("v1.2-rc1", false), file(&configv1.Release{Prereleases: &full, Execute: publish}), eventv1.Reason_REASON_BUILT, "built"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.tags = map[string]string{"v1.2": "tagged", "cli/v1": "tagged", "v1.2-rc1": "tagged"}
			r.config.set("tagged", c.config)
			d := r.send(c.event)
			if d.GetReason() != c.reason || d.GetText() != c.text {
				t.Errorf("%v %q, want %v %q", d.GetReason(), d.GetText(), c.reason, c.text)
			}
			all := r.all()
			if built := len(all) > 0; built != (c.reason == eventv1.Reason_REASON_BUILT) {
				t.Fatalf("built %v", all)
			} else if !built {
				return
			}
			b := all[0]
			if b.GetContext() != "forge/release" || b.GetAction() != schedulerv1.Build_ACTION_RELEASE || b.GetSha() != "tagged" || b.GetTitle() != "Commit of "+c.event.GetRelease().GetTag() {
				t.Errorf("%v", b)
			}
			u := r.attach(r.spec(b.GetId(), 1).Runner.Token)
			if got := u.plan.GetEnvironment(); got["FORGE_TAG"] != c.event.GetRelease().GetTag() || got["FORGE_ACTION"] != "release" {
				t.Errorf("%v", got)
			}
			if again := r.again(c.event); again.GetReason() != eventv1.Reason_REASON_DUPLICATE || len(r.all()) != 1 {
				t.Errorf("in another delivery: %v", again)
			}
		})
	}
}

// Two releases of one commit are two, and one is not decided while GitHub does not
// say where its tag is.
func TestAReleaseIsOfItsTag(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := usual()
		config.Release = &configv1.Release{Execute: &configv1.Pipeline{Jobs: []*configv1.Job{
			job("publish"), job("notes", given(&configv1.Condition{Events: []configv1.Condition_Event{configv1.Condition_EVENT_RELEASE}})),
			job("docs", given(&configv1.Condition{Branches: []string{"**"}})),
		}}}
		r.config.set("tagged", valid(config))
		r.config.tags = map[string]string{"v1": "tagged", "v1.0": "tagged"}
		r.config.commitErr = fault.New(fault.Unavailable, "GitHub is down")
		if _, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: published("v1", false)}); status.Code(err) != codes.Unavailable {
			t.Errorf("%v", err)
		}
		r.config.commitErr = nil
		first := r.built(published("v1", false))
		if got := jobsOf(r, first); strings.Contains(got, "notes cancelled") || !strings.HasSuffix(got, "; docs cancelled not run: its if names branches, and this is a tag") {
			t.Errorf("%s", got)
		}
		second := r.built(published("v1.0", false))
		retried, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: second})
		if status.Code(err) != codes.AlreadyExists {
			t.Errorf("%v, %v", retried, err)
		}
		if ids := []string{r.all()[1].GetId(), r.all()[0].GetId()}; !slices.Equal(ids, []string{first, second}) {
			t.Errorf("built %v", ids)
		}
	})
}
