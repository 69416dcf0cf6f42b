package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func TestSkipIsAskedForByATitleOrAMessage(t *testing.T) {
	titled := func(title string, e *eventv1.Event) *eventv1.Event {
		pull(e).Title = title
		return e
	}
	said := func(message string, e *eventv1.Event) *eventv1.Event {
		e.GetPush().HeadMessage = message
		return e
	}
	grouped := group("checks_requested", "main", "aaa")
	grouped.GetMergeGroup().HeadMessage = "Merge [skip ci]"
	config := usual()
	config.Push = &configv1.Push{Branches: []string{"main"}, Tags: []string{"v*"}, Execute: config.GetExecute()}
	for name, c := range map[string]struct {
		event *eventv1.Event
		why   string // "": it is built
	}{
		"a title":                  {titled("Mend a typo [skip ci]", opened(1, "aaa")), "the title says [skip ci]"},
		"a title, another form":    {titled("[No CI] Mend a typo", opened(1, "aaa")), "the title says [No CI]"},
		"a fork's title":           {titled("Mend a typo [skip ci]", fromFork("eve", opened(1, "aaa"))), "the title says [skip ci]"},
		"a plain title":            {titled("Skip ci for once", opened(1, "aaa")), ""},
		"a merged one's title":     {titled("Mend a typo [skip ci]", mergedInto(1, "main", "aaa")), ""},
		"a push":                   {said("Mend a typo\n\n[ci skip]", pushedTo("refs/heads/main", "aaa")), "the commit's message says [ci skip]"},
		"a push, by a trailer":     {said("Mend a typo\n\nskip-checks: true", pushedTo("refs/heads/main", "aaa")), "the commit's message says skip-checks: true"},
		"a plain push":             {said("Mend a typo", pushedTo("refs/heads/main", "aaa")), ""},
		"a tag on such a commit":   {said("Mend a typo [skip ci]", pushedTo("refs/tags/v1", "aaa")), ""},
		"a merge group's message":  {grouped, ""},
		"a push to another branch": {said("Mend a typo [skip ci]", pushedTo("refs/heads/other", "aaa")), "no build"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("aaa", valid(config))
			d := r.send(c.event)
			if c.why == "no build" {
				if d.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED || len(r.all()) != 0 {
					t.Errorf("decided %v", d)
				}
				return
			}
			if len(d.GetBuildIds()) != 1 {
				t.Fatalf("decided %v", d)
			}
			b := r.build(d.GetBuildIds()[0])
			if c.why == "" {
				if b.GetReason() == schedulerv1.Build_REASON_SKIP_ASKED || d.GetReason() != eventv1.Reason_REASON_BUILT {
					t.Errorf("decided %v: %v", d, b)
				}
				return
			}
			if d.GetReason() != eventv1.Reason_REASON_SKIP_ASKED || d.GetText() != "ignored: "+c.why || b.GetState() != schedulerv1.Build_STATE_CANCELLED ||
				b.GetReason() != schedulerv1.Build_REASON_SKIP_ASKED || b.GetMessage() != c.why {
				t.Errorf("decided %v: %v", d, b)
			}
			r.shown("aaa", b.GetContext(), schedulerv1.Build_STATE_CANCELLED)
		})
	}
}

// Neither another delivery nor a button at nothing undoes it; a person does, and so
// does a new head under another title.
func TestSkippedPullRequestIsBuiltWhereAPersonAsks(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		e := opened(1, "aaa")
		pull(e).Title = "Mend a typo [skip ci]"
		skipped := r.send(r.github.shows(e)).GetBuildIds()
		if d := r.again(e); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(d.GetBuildIds(), skipped) {
			t.Errorf("in another delivery: %v", d)
		}
		r.pass(r.built(commentBy("ada", "/forge retest")))
		next := synchronize("aaa", "bbb", noon.Add(time.Minute))
		pull(next).UpdateTime = timestamppb.New(noon.Add(time.Minute))
		r.pass(r.built(next))
	})
}
