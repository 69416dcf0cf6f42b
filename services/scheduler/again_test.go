package scheduler

import (
	"slices"
	"testing"
	"time"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestReopenedPullRequestBuildsAgainWhatDidNotPass(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(opened(1, "aaa"))
		r.fail(first, 1, 1)
		r.becomes(first, schedulerv1.Build_STATE_FAILED)
		r.send(closed("aaa", noon.Add(time.Minute)))
		again := reopened("aaa", noon.Add(2*time.Minute))
		second := r.built(again)
		if b := r.build(second); b.GetRetryOf() != first {
			t.Errorf("%v", b)
		}
		for _, late := range []*eventv1.Event{again, opened(1, "aaa"), reopened("aaa", noon.Add(2*time.Minute))} {
			if d := r.again(late); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
				t.Errorf("another delivery of %s: %v", late.GetAction(), d)
			}
		}
		r.fail(second, 1, 1)
		r.becomes(second, schedulerv1.Build_STATE_FAILED)
		if d := r.again(again); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
			t.Errorf("the reopening once more, with its build failed meanwhile: %v", d)
		}
		r.send(closed("aaa", noon.Add(3*time.Minute)))
		third := r.built(reopenedAs("third", "aaa", noon.Add(4*time.Minute)))
		r.pass(third)
		r.send(closed("aaa", noon.Add(5*time.Minute)))
		if d := r.send(reopenedAs("fourth", "aaa", noon.Add(6*time.Minute))); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(d.GetBuildIds(), []string{third}) {
			t.Errorf("what has passed is not built again: %v", d)
		}
	})
}

func reopenedAs(delivery, sha string, at time.Time) *eventv1.Event {
	e := reopened(sha, at)
	e.DeliveryId = delivery
	return e
}

func TestAnotherIntegrationBranchAsTheBaseIsBuiltAgainst(t *testing.T) {
	r := sqliteRig(t)
	r.deps.Policy.IntegrationBranches = []string{"main", "[0-9]*.x"}
	r.start()
	first := r.built(opened(1, "aaa"))
	r.pass(first)
	moved := rebased("main", "13.x", noon.Add(time.Minute))
	second := r.built(moved)
	if b := r.build(second); b.GetBaseRef() != "13.x" || b.GetContext() != "forge/test" || b.GetRetryOf() != first {
		t.Errorf("%v", b)
	}
	if d := r.again(moved); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
		t.Errorf("another delivery: %v", d)
	}
	third := r.built(rebased("13.x", "main", noon.Add(2*time.Minute)))
	if b := r.becomes(second, schedulerv1.Build_STATE_CANCELLED); b.GetMessage() != "Superseded: base branch is main" || b.GetSupersededBy() != third {
		t.Errorf("%v", b)
	}
	if d := r.again(moved); d.GetReason() == eventv1.Reason_REASON_BUILT {
		t.Errorf("a late delivery of the base before: %v", d)
	}
	r.pass(third)
}

// GitHub's times are in whole seconds, and a program opens a pull request and moves
// it on within one.
func TestBaseThatChangesWithinTheSecondIsBuiltAgainst(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.deps.Policy.IntegrationBranches = []string{"main", "13>x", "14.x"}
		r.stop()
		r.start()
		first := r.built(opened(1, "aaa"))
		moved := rebased("main", "13>x", noon)
		second := r.built(moved)
		third := r.built(rebased("13>x", "14.x", noon))
		r.becomes(second, schedulerv1.Build_STATE_CANCELLED)
		for _, late := range []*eventv1.Event{opened(1, "aaa"), moved} {
			if d := r.again(late); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
				t.Errorf("another delivery of %s: %v", late.GetAction(), d)
			}
		}
		if b := r.build(third); b.GetBaseRef() != "14.x" || len(r.all()) != 3 {
			t.Errorf("%v among %v, the first %s", b, r.all(), first)
		}
	})
}

func TestTimedOutBuildRunsAgainOnceReopened(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(opened(1, "aaa"))
		u := r.attach(r.spec(first, 1).Runner.Token)
		u.send(began(1, 1), over(2, schedulerv1.Ended_CAUSE_TIMED_OUT))
		r.becomes(first, schedulerv1.Build_STATE_TIMED_OUT)
		// The reopening comes before the closing.
		again := reopened("aaa", noon.Add(2*time.Minute))
		if second := r.built(again); r.build(second).GetRetryOf() != first {
			t.Errorf("%v", r.build(second))
		}
		if d := r.send(closed("aaa", noon.Add(time.Minute))); d.GetReason() != eventv1.Reason_REASON_DUPLICATE && d.GetReason() != eventv1.Reason_REASON_STALE {
			t.Errorf("%v", d)
		}
		if d := r.again(again); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || len(r.all()) != 2 {
			t.Errorf("%v: %v", d, r.all())
		}
	})
}

func TestHeadWithoutAConfigThatTheBaseHasIsToldSo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", absent)
		id := r.send(opened(1, "aaa")).GetBuildIds()[0]
		b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_ERRORED)
		if b.GetId() != id || b.GetReason() != schedulerv1.Build_REASON_CONFIG_ABSENT || b.GetMessage() != "no .forge.yml at aaa, and main has one: rebase onto it, or add the file" {
			t.Errorf("%v", b)
		}
		r.config.set("bbb", absent)
		r.config.set("base", absent)
		if d := r.send(opened(2, "bbb")); d.GetReason() != eventv1.Reason_REASON_NO_CONFIG || len(d.GetBuildIds()) > 0 {
			t.Errorf("where the base has none either: %v", d)
		}
		r.config.set("base", invalid)
		if d := r.send(opened(3, "bbb")); len(d.GetBuildIds()) != 1 {
			t.Errorf("where that of the base is broken: %v", d)
		}
	})
}

// A bot's pull request carries code that nobody has read.
func TestBotsPullRequestGetsNoSecrets(t *testing.T) {
	bot := func(login string, e *eventv1.Event) *eventv1.Event {
		account := &eventv1.Account{Login: login, Type: eventv1.Account_TYPE_BOT}
		e.Sender, pull(e).Author, pull(e).MergedBy = account, account, account
		return e
	}
	untyped := bot("renovate[bot]", opened(8, "ggg"))
	pull(untyped).Author = &eventv1.Account{Login: "renovate[bot]"}
	promotion := bot("forge-of-acme[bot]", opened(5, "ppp"))
	pull(promotion).Head.Ref, pull(promotion).Base.Ref = "main", "production"
	named := bot("evil[bot]", fromFork("evil[bot]", opened(6, "fff")))
	pull(named).Author.Type, pull(named).Head.Ref, pull(named).Base.Ref = eventv1.Account_TYPE_BOT, "main", "production"
	for name, c := range map[string]struct {
		event    *eventv1.Event
		withheld bool
	}{
		"a bot":                                 {bot("renovate[bot]", opened(1, "aaa")), true},
		"a bot by its login alone":              {untyped, true},
		"a trusted bot":                         {bot("Dependabot[bot]", opened(2, "bbb")), false},
		"one that is called alike":              {bot("dependabot-preview[bot]", opened(3, "ccc")), true},
		"a person":                              {opened(4, "ddd"), false},
		"what was merged, on its way on":        {promotion, false},
		"a fork's branch that is called so":     {named, true},
		"a bot's pull request, merged by a bot": {bot("renovate[bot]", mergedInto(7, "main", "m7")), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := sqliteRig(t)
			r.deps.Policy.TrustedBots = []string{"dependabot"}
			r.start()
			r.config.secrets = []string{"TOKEN"}
			id := r.send(c.event).GetBuildIds()[0]
			if b := r.build(id); b.GetSecretsWithheld() != c.withheld {
				t.Fatalf("withheld: %v, want %v", b.GetSecretsWithheld(), c.withheld)
			}
			if !c.withheld {
				return
			}
			r.github.shows(c.event)
			if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
				t.Fatal(err)
			}
			for door, again := range map[string]func() string{
				"a button": func() string { return r.send(pressedAt(pull(c.event).GetHead().GetSha(), id, "")).GetBuildIds()[0] },
				"a call": func() string {
					answer, err := r.builds.RetryBuild(t.Context(), &schedulerv1.RetryBuildRequest{BuildId: id})
					if err != nil {
						t.Fatal(err)
					}
					return answer.GetBuild().GetId()
				},
				"a comment": func() string {
					e := commentBy("ada", "/forge retest")
					e.GetIssueComment().Number = pull(c.event).GetNumber()
					return r.send(e).GetBuildIds()[0]
				},
			} {
				id = again()
				if b := r.build(id); !b.GetSecretsWithheld() {
					t.Errorf("by %s it gets the secrets: %v", door, b)
				}
				if _, err := r.builds.CancelBuild(t.Context(), &schedulerv1.CancelBuildRequest{BuildId: id}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What GitHub did not let Forge read says nothing of what the file names.
func TestBotsPullRequestGetsNoSecretsThatAreSeenLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.set("aaa", &configv1.GetBuildConfigResponse{
			Outcome: &configv1.GetBuildConfigResponse_Forbidden{Forbidden: &configv1.ConfigForbidden{Message: "the App may not read contents"}},
		})
		e := opened(1, "aaa")
		pull(e).Author = &eventv1.Account{Login: "renovate[bot]", Type: eventv1.Account_TYPE_BOT}
		id := r.send(e).GetBuildIds()[0]
		r.becomes(id, schedulerv1.Build_STATE_ERRORED)
		config := usual()
		config.Secrets = []string{"TOKEN"}
		r.config.set("aaa", valid(config))
		again := r.built(pressedAt("aaa", id, ""))
		const nothing = "map[] forge: a bot's pull request gets no secrets, unless the server trusts the bot by name (FORGE_TRUSTED_BOTS)"
		if given := r.given(again); given != nothing {
			t.Errorf("%q, want %q", given, nothing)
		}
	})
}

func TestFailedLookAtTheHeadCommitIsTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.commitErr = fault.New(fault.Unavailable, "GitHub is down")
		if _, err := r.events.ReceiveEvent(t.Context(), &schedulerv1.ReceiveEventRequest{Event: opened(1, "aaa")}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("the event is taken for decided: %v", err)
		}
		r.config.commitErr = nil
		r.built(opened(1, "aaa"))
		r.config.commitErr = fault.New(fault.NotFound, "GitHub has no such commit")
		r.built(opened(2, "bbb"))
	})
}

func TestSkipIsAskedForByTheHeadCommitOfAPullRequest(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.config.messages = map[string]string{"aaa": "Mend a typo [skip ci]", "m1": "Mend a typo [skip ci]"}
		id := r.send(opened(1, "aaa")).GetBuildIds()[0]
		b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_CANCELLED)
		if b.GetId() != id || b.GetReason() != schedulerv1.Build_REASON_SKIP_ASKED || b.GetMessage() != "the head commit's message says [skip ci]" {
			t.Errorf("%v", b)
		}
		r.built(synchronize("aaa", "bbb", noon.Add(time.Minute)))
		r.built(mergedInto(2, "main", "m1")) // what was merged is deployed
		r.github.shows(opened(1, "aaa"))
		r.built(commentBy("ada", "/forge retest")) // and what a person asks for is built
	})
}
