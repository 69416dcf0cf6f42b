package scheduler

import (
	"strings"
	"testing"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func pushedTo(ref, sha string) *eventv1.Event {
	return happened("push", "", &eventv1.PushEvent{
		Ref: ref, Before: "0000000", After: sha, HeadSha: sha, HeadMessage: "Add a till\n\nAnd a drawer.", CommitCount: 3, Pusher: "ada",
	})
}

func botsPush() *eventv1.Event {
	e := pushedTo("refs/heads/main", "aaa")
	e.Sender = &eventv1.Account{Login: "renovate[bot]", Type: eventv1.Account_TYPE_BOT}
	return e
}

func TestPushesAreBuiltAsForgeYmlNamesThem(t *testing.T) {
	named := usual()
	named.Push = &configv1.Push{
		Branches: []string{"main", "release/*", "deep/**", "fix-{a,b}"}, Tags: []string{"v*"},
		Execute: &configv1.Pipeline{Commands: []*configv1.Command{{Name: "docs", Run: "make docs"}}},
	}
	branchesOnly := usual()
	branchesOnly.Push = &configv1.Push{Branches: []string{"**"}, Execute: named.GetPush().GetExecute()}
	none := &configv1.GetBuildConfigResponse{Outcome: &configv1.GetBuildConfigResponse_Absent{Absent: &configv1.ConfigAbsent{}}}
	with := func(change func(*eventv1.PushEvent)) *eventv1.Event {
		e := pushedTo("refs/heads/main", "aaa")
		change(e.GetPush())
		return e
	}
	for name, c := range map[string]struct {
		event  *eventv1.Event
		config *configv1.GetBuildConfigResponse // nil: named
		reason eventv1.Reason
		text   string
	}{
		"branch":             {event: pushedTo("refs/heads/main", "aaa"), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"glob":               {event: pushedTo("refs/heads/release/1.2", "aaa"), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"deep glob":          {event: pushedTo("refs/heads/deep/a/b", "aaa"), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"one of several":     {event: pushedTo("refs/heads/fix-b", "aaa"), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"tag":                {event: pushedTo("refs/tags/v1.2", "aaa"), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"created":            {event: with(func(p *eventv1.PushEvent) { p.Created = true }), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"forced":             {event: with(func(p *eventv1.PushEvent) { p.Forced = true }), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"by a bot":           {event: botsPush(), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"annotated tag":      {event: with(func(p *eventv1.PushEvent) { p.Ref, p.After = "refs/tags/v2", "the-tag" }), reason: eventv1.Reason_REASON_BUILT, text: "built"},
		"other branch":       {event: pushedTo("refs/heads/feature/x", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.branches in .forge.yml does not name feature/x"},
		"star and slash":     {event: pushedTo("refs/heads/release/1/2", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.branches in .forge.yml does not name release/1/2"},
		"name that goes on":  {event: pushedTo("refs/heads/main2", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.branches in .forge.yml does not name main2"},
		"branch like a tag":  {event: pushedTo("refs/heads/v1", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.branches in .forge.yml does not name v1"},
		"tag like a branch":  {event: pushedTo("refs/tags/main", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.tags in .forge.yml does not name main"},
		"no tags named":      {event: pushedTo("refs/tags/v1", "aaa"), config: valid(branchesOnly), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.tags in .forge.yml does not name v1"},
		"branch in capitals": {event: pushedTo("refs/heads/Main", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: push.branches in .forge.yml does not name Main"},
		"tag deleted":        {event: with(func(p *eventv1.PushEvent) { p.Ref, p.Deleted = "refs/tags/v1", true }), reason: eventv1.Reason_REASON_ACTION_IGNORED, text: "ignored: refs/tags/v1 was deleted"},
		"pull request's ref": {event: pushedTo("refs/pull/1/head", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: refs/pull/1/head is neither a branch nor a tag"},
		"deleted":            {event: with(func(p *eventv1.PushEvent) { p.Deleted = true }), reason: eventv1.Reason_REASON_ACTION_IGNORED, text: "ignored: refs/heads/main was deleted"},
		"zeros":              {event: with(func(p *eventv1.PushEvent) { p.After = strings.Repeat("0", 40) }), reason: eventv1.Reason_REASON_ACTION_IGNORED, text: "ignored: refs/heads/main was deleted"},
		"merge queue":        {event: pushedTo("refs/heads/gh-readonly-queue/main/pr-1-abc", "aaa"), config: valid(branchesOnly), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: the merge queue's own branches are built as merge groups"},
		"note":               {event: pushedTo("refs/notes/commits", "aaa"), reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: refs/notes/commits is neither a branch nor a tag"},
		"nothing asked for":  {event: pushedTo("refs/heads/main", "aaa"), config: valid(usual()), reason: eventv1.Reason_REASON_NOTHING_TO_RUN, text: "ignored: nothing to run for push in .forge.yml"},
		"no .forge.yml":      {event: pushedTo("refs/heads/main", "aaa"), config: none, reason: eventv1.Reason_REASON_NO_CONFIG, text: "no .forge.yml at aaa"},
		"without a commit":   {event: pushedTo("refs/heads/main", ""), reason: eventv1.Reason_REASON_MALFORMED, text: "malformed: a push without a repository, a ref or a commit"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			if c.config == nil {
				c.config = valid(named)
			}
			r.config.set("aaa", c.config)
			d := r.send(c.event)
			if d.GetReason() != c.reason || d.GetText() != c.text {
				t.Errorf("%v %q, want %v %q", d.GetReason(), d.GetText(), c.reason, c.text)
			}
			built := r.all()
			if c.reason != eventv1.Reason_REASON_BUILT {
				if len(built) != 0 {
					t.Errorf("built %v", built)
				}
				return
			}
			context := "forge/push"
			if strings.HasPrefix(c.event.GetPush().GetRef(), "refs/tags/") {
				context = "forge/tag" // of its own: a branch pushed with it may have failed
			}
			if b := built[0]; b.GetContext() != context || b.GetSha() != "aaa" || b.GetRef() != c.event.GetPush().GetRef() ||
				b.GetAction() != schedulerv1.Build_ACTION_PUSH || b.GetTitle() != "Add a till" || b.GetStepCount() != 1 || b.GetFork() {
				t.Errorf("%v", b)
			}
			if again := r.again(c.event); again.GetReason() != eventv1.Reason_REASON_DUPLICATE || len(r.all()) != 1 {
				t.Errorf("in another delivery: %v", again)
			}
		})
	}
}

func TestTagIsBuiltThoughItsBranchWas(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		config := usual()
		config.Push = &configv1.Push{Branches: []string{"main"}, Tags: []string{"v*"}, Execute: config.GetExecute()}
		r.config.set("aaa", valid(config))
		branch := r.built(pushedTo("refs/heads/main", "aaa"))
		r.pass(branch)
		if tag := r.built(pushedTo("refs/tags/v1", "aaa")); tag == branch {
			t.Error("the tag shares its branch's build")
		}
	})
}
