package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// rules is the usual file with these rules for pull requests.
func rules(said *configv1.BuildConfig_PullRequest) *configv1.GetBuildConfigResponse {
	config := usual()
	config.PullRequest = said
	return valid(config)
}

func branches(patterns ...string) *configv1.GetBuildConfigResponse {
	return rules(&configv1.BuildConfig_PullRequest{Branches: patterns})
}

func into(base string, e *eventv1.Event) *eventv1.Event {
	pull(e).Base.Ref = base
	return e
}

// marked is an event about the labels of a pull request, or that it is a draft.
func marked(action, label, sha string, at time.Time, draft bool, labels ...string) *eventv1.Event {
	e := opened(1, sha)
	e.Action, e.DeliveryId = action, action+"-"+label+"-"+at.String()
	e.GetPullRequest().Label = label
	pull(e).Labels, pull(e).Draft, pull(e).UpdateTime = labels, draft, timestamppb.New(at)
	return e
}

// What base branches count for pull requests, by the file of the base branch and, as
// far as that is missing or broken, by the head's, with what comes near it.
func TestTheFileOfTheBaseBranchSaysWhetherItCounts(t *testing.T) {
	absent := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{}}
	broken := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Invalid{Invalid: &configv1.ConfigInvalid{}}}
	notNamed := func(base string) string {
		return "ignored: pull_request.branches in .forge.yml of " + base + " does not name it"
	}
	for _, c := range []struct {
		name, base string
		file, head *configv1.GetBuildConfigResponse // of the base branch, and of the pull request
		context    string                           // of the build; "" for none
		text       string
	}{
		{"the server's branch, no patterns", "main", nil, nil, "forge/test", "built"},
		{"the server's other branch, no patterns", "production", nil, nil, "forge/staging", "built"},
		{"another, no patterns", "13.x", nil, nil, "", "ignored: base branch is 13.x"},
		{"another, named", "13.x", branches("[0-9]*.x"), nil, "forge/test", "built"},
		{"another, almost named", "x13.x", branches("[0-9]*.x"), nil, "", notNamed("x13.x")},
		{"below a folder", "release/1/2", branches("release/**"), nil, "forge/test", "built"},
		{"below a folder, one level", "release/1/2", branches("release/*"), nil, "", notNamed("release/1/2")},
		{"in other letters", "Main", branches("main"), nil, "", notNamed("Main")},
		{"the server's, not named", "main", branches("13.x"), nil, "", notNamed("main")},
		{"production, named", "production", branches("*"), nil, "forge/staging", "built"},
		{"production, not named", "production", branches("main"), nil, "", notNamed("production")},
		// A pull request has no say in whether it is checked.
		{"the head names others", "main", nil, branches("nothing"), "forge/test", "built"},
		{"the head names another than the base", "main", branches("main"), branches("nothing"), "forge/test", "built"},
		{"the head names it, the base does not", "feature", branches("main"), branches("feature"), "", notNamed("feature")},
		{"the head names it, the base has no patterns", "feature", nil, branches("feature"), "", "ignored: base branch is feature"},
		{"no file at the base, the head names others", "main", absent, branches("nothing"), "forge/test", "built"},
		{"no file at the base, the head names it", "13.x", absent, branches("13.x"), "forge/test", "built"},
		{"a broken file at the base, the head names it", "13.x", broken, branches("13.x"), "forge/test", "built"},
		{"a broken file at the base, the head names others", "main", broken, branches("nothing"), "forge/test", "built"},
		{"no file anywhere", "13.x", absent, absent, "", "ignored: base branch is 13.x"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			if c.file != nil {
				r.config.set(c.base, c.file)
			}
			if c.head != nil {
				r.config.set("aaa", c.head)
			}
			d := r.send(into(c.base, opened(1, "aaa")))
			if d.GetText() != c.text {
				t.Errorf("decided %q, want %q", d.GetText(), c.text)
			}
			if all := r.all(); len(all) > 1 || (len(all) == 1) != (c.context != "") || len(all) == 1 && all[0].GetContext() != c.context {
				t.Errorf("built %v, want %q", all, c.context)
			}
		})
	}
}

// A merge group, and whoever asks for a retest or approves, have the same branches.
func TestTheBaseBranchCountsWhoeverAsks(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("13.x", branches("13.x"))
		r.config.set("main", branches("13.x"))
		group := func(base string) *eventv1.Event {
			return happened("merge_group", "checks_requested", &eventv1.MergeGroupEvent{HeadSha: "ggg", HeadRef: "refs/heads/gh-readonly-queue/" + base + "/1", BaseRef: base})
		}
		if id := r.built(group("13.x")); r.build(id).GetContext() != "forge/test" {
			t.Errorf("%v", r.build(id))
		}
		if d := r.send(group("main")); d.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED {
			t.Errorf("%v", d)
		}
		fork := r.github.shows(fromFork("eve", into("13.x", opened(1, strings.Repeat("a", 40)))))
		if d := r.send(fork); d.GetReason() != eventv1.Reason_REASON_BLOCKED {
			t.Errorf("%v", d)
		}
		if d := r.send(commentBy("ada", "/forge approve "+strings.Repeat("a", 40))); d.GetReason() != eventv1.Reason_REASON_APPROVED {
			t.Errorf("%v", d)
		}
		r.github.shows(into("main", opened(1, "bbb")))
		if d := r.send(commentBy("ada", "/forge retest")); d.GetReason() != eventv1.Reason_REASON_BRANCH_IGNORED {
			t.Errorf("%v", d)
		}
	})
}

// Labels and drafts, as the file of the base branch asks for them: a row is what is
// heard of one pull request, event by event, and what becomes of each.
func TestLabelsAndDraftsSayWhatIsBuilt(t *testing.T) {
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	draft := func(e *eventv1.Event) *eventv1.Event { pull(e).Draft = true; return e }
	labelled := func(e *eventv1.Event, labels ...string) *eventv1.Event { pull(e).Labels = labels; return e }
	yes, no := true, false
	labels := &configv1.BuildConfig_PullRequest{Labels: []string{"preview", "e2e"}}
	none := "#1 has no label preview or e2e"
	for _, c := range []struct {
		name   string
		said   *configv1.BuildConfig_PullRequest
		events []*eventv1.Event
		texts  []string
	}{
		{"no labels asked for", nil, []*eventv1.Event{opened(1, "a"), marked("labeled", "preview", "a", at(1), false, "preview")}, []string{"built", "ignored: action labeled"}},
		{"without", labels, []*eventv1.Event{opened(1, "a")}, []string{"ignored: " + none}},
		{"with another", labels, []*eventv1.Event{labelled(opened(1, "a"), "Preview", "previews")}, []string{"ignored: " + none}},
		{"with one", labels, []*eventv1.Event{labelled(opened(1, "a"), "x", "e2e")}, []string{"built"}},
		{"with one later", labels, []*eventv1.Event{opened(1, "a"), marked("labeled", "e2e", "a", at(1), false, "e2e")}, []string{"ignored: " + none, "built"}},
		{"with another later", labels, []*eventv1.Event{opened(1, "a"), marked("labeled", "bug", "a", at(1), false, "bug")}, []string{"ignored: " + none, "ignored: action labeled"}},
		{"with a second", labels, []*eventv1.Event{labelled(opened(1, "a"), "e2e"), marked("labeled", "preview", "a", at(1), false, "e2e", "preview")}, []string{"built", "ignored: a was built already"}},
		{"taken off", labels, []*eventv1.Event{labelled(opened(1, "a"), "e2e"), marked("unlabeled", "e2e", "a", at(1), false)}, []string{"built", "cancelled: " + none}},
		{"one of two taken off", labels, []*eventv1.Event{labelled(opened(1, "a"), "e2e", "preview"), marked("unlabeled", "e2e", "a", at(1), false, "preview")}, []string{"built", "ignored: a was built already"}},
		{"taken off and put on", labels, []*eventv1.Event{
			labelled(opened(1, "a"), "e2e"), marked("unlabeled", "e2e", "a", at(1), false), marked("labeled", "e2e", "a", at(2), false, "e2e"),
		}, []string{"built", "cancelled: " + none, "built"}},
		{"taken off before a push", labels, []*eventv1.Event{labelled(opened(1, "a"), "e2e"), synchronize("a", "b", at(1))}, []string{"built", "cancelled: " + none}},
		{"put on in the second it was opened, and heard of first", labels, []*eventv1.Event{marked("labeled", "e2e", "a", at(0), false, "e2e"), opened(1, "a")}, []string{"built", "ignored: a was built already"}},
		{"late news of a label", labels, []*eventv1.Event{labelled(synchronize("a", "b", at(5)), "e2e"), marked("unlabeled", "e2e", "a", at(1), false)}, []string{"built", "ignored: something newer is known of #1"}},
		{"a draft", nil, []*eventv1.Event{draft(opened(1, "a")), marked("ready_for_review", "", "a", at(1), false)}, []string{"built", "ignored: action ready_for_review"}},
		{"a draft, and they count", &configv1.BuildConfig_PullRequest{Drafts: &yes}, []*eventv1.Event{draft(opened(1, "a")), marked("converted_to_draft", "", "a", at(1), true)}, []string{"built", "ignored: action converted_to_draft"}},
		{"a draft, and they do not", &configv1.BuildConfig_PullRequest{Drafts: &no}, []*eventv1.Event{draft(opened(1, "a")), marked("ready_for_review", "", "a", at(1), false)}, []string{"ignored: #1 is a draft", "built"}},
		{"a draft later", &configv1.BuildConfig_PullRequest{Drafts: &no}, []*eventv1.Event{opened(1, "a"), marked("converted_to_draft", "", "a", at(1), true)}, []string{"built", "cancelled: #1 is a draft"}},
		{"a draft with a label", &configv1.BuildConfig_PullRequest{Drafts: &no, Labels: []string{"e2e"}}, []*eventv1.Event{
			draft(labelled(opened(1, "a"), "e2e")), marked("labeled", "e2e", "a", at(1), true, "e2e"), marked("ready_for_review", "", "a", at(2), false, "e2e"),
		}, []string{"ignored: #1 is a draft", "ignored: #1 is a draft", "built"}},
		{"the base is no such branch", &configv1.BuildConfig_PullRequest{Labels: []string{"e2e"}, Branches: []string{"13.x"}}, []*eventv1.Event{marked("labeled", "e2e", "a", at(1), false, "e2e")}, []string{"ignored: pull_request.branches in .forge.yml of main does not name it"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.config.set("main", rules(c.said))
			// What a pull request says of itself is not asked for.
			r.config.set("a", rules(&configv1.BuildConfig_PullRequest{Labels: []string{"nobody's"}, Drafts: &yes}))
			newest := slices.MaxFunc(c.events, func(a, b *eventv1.Event) int {
				return pull(a).GetUpdateTime().AsTime().Compare(pull(b).GetUpdateTime().AsTime())
			})
			var texts []string
			for n, e := range c.events {
				// GitHub shows what happened last as soon as it did.
				shown := proto.CloneOf(e)
				if !pull(e).GetUpdateTime().AsTime().Before(pull(newest).GetUpdateTime().AsTime()) {
					shown = newest
				}
				r.github.shows(shown)
				e.DeliveryId = strings.Repeat("d", n+1)
				text, _, _ := strings.Cut(r.send(e).GetText(), ", as ")
				texts = append(texts, text)
			}
			if !slices.Equal(texts, c.texts) {
				t.Errorf("decided %q, want %q", texts, c.texts)
			}
		})
	}
}

// A label that jobs ask for has those run that were left out for want of it; what
// passed already counts.
func TestALabelBringsItsJobs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		file := func() *configv1.GetBuildConfigResponse {
			return ofJobs(job("quick"), job("slow", given(&configv1.Condition{Labels: []string{"slow"}})))
		}
		r.config.set("aaa", file())
		first := r.built(opened(1, "aaa"))
		r.pass(store.JobID(first, 1))
		r.becomes(first, schedulerv1.Build_STATE_PASSED)
		r.config.set("aaa", file())
		if d := r.send(r.github.shows(marked("labeled", "bug", "aaa", noon.Add(time.Minute), false, "bug"))); d.GetText() != "ignored: action labeled" {
			t.Errorf("another label: %v", d)
		}
		label := r.github.shows(marked("labeled", "slow", "aaa", noon.Add(2*time.Minute), false, "bug", "slow"))
		second := r.built(label)
		b := r.build(second)
		if b.GetRetryOf() != first || b.GetJobs()[0].GetReason() != schedulerv1.Build_REASON_CARRIED {
			t.Errorf("%v", b)
		}
		r.pass(store.JobID(second, 2))
		r.becomes(second, schedulerv1.Build_STATE_PASSED)
		for _, e := range []*eventv1.Event{label, marked("unlabeled", "slow", "aaa", noon.Add(3*time.Minute), false)} {
			if d := r.again(r.github.shows(e)); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
				t.Errorf("%s once more: %v", e.GetAction(), d)
			}
		}
	})
}
