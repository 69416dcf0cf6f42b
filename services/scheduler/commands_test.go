package scheduler

import (
	"slices"
	"strings"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

func TestWhatIsShownAsCodeOrQuoteIsNoCommand(t *testing.T) {
	for name, body := range map[string]string{
		"fenced": "Say\n```\n/forge retest\n```", "indented": "Say\n\n    /forge retest", "hidden": "<!--\n/forge retest\n-->",
		"quoted": "> they said\n/forge retest", "in details": "<details>\n/forge retest\n</details>",
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.pass(r.built(r.github.shows(opened(1, "aaa"))))
			if d := r.send(commentBy("ada", body)); d.GetReason() != eventv1.Reason_REASON_NOT_ADDRESSED || len(r.all()) != 1 {
				t.Errorf("decided %v", d)
			}
			r.send(commentBy("root", "/forge help"))
			r.answered(1)
		})
	}
}

func TestCommandsOfOneCommentAreCarriedOutInOrder(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(r.github.shows(opened(1, "aaa")))
		comment := commentBy("ada", "Stuck:\r\n/forge cancel\r\n\r\nOnce more\r\n/forge retest\r\n")
		d := r.send(comment)
		if d.GetReason() != eventv1.Reason_REASON_CANCELLED || d.GetText() != "cancelled: ada asked for it; built" || len(d.GetBuildIds()) != 2 || d.GetBuildIds()[0] != first {
			t.Fatalf("decided %v", d)
		}
		if b := r.build(d.GetBuildIds()[1]); b.GetSha() != "aaa" || b.GetState() == schedulerv1.Build_STATE_CANCELLED {
			t.Errorf("%v", b)
		}
		r.becomes(first, schedulerv1.Build_STATE_CANCELLED)
		if again := r.again(comment); !slices.Equal(again.GetBuildIds(), d.GetBuildIds()) || len(r.all()) != 2 {
			t.Errorf("in another delivery: %v", again)
		}
		if a := r.answered(1)[0]; a.GetReaction() != reporterv1.AnswerRequest_REACTION_SEEN || a.GetText() != "" {
			t.Errorf("answered %v %q", a.GetReaction(), a.GetText())
		}
	})
}

func TestCommandsOfOneCommentAreAnsweredOnce(t *testing.T) {
	const nothing = "`/forge cancel`: Nothing done: ada asked for it, and nothing of it was queued or running."
	for name, c := range map[string]struct {
		login, body string
		reaction    reporterv1.AnswerRequest_Reaction
		text        string
		builds      int
	}{
		"one in vain":     {"ada", "/forge cancel\n/forge retest", reporterv1.AnswerRequest_REACTION_CONFUSED, nothing, 1},
		"one unknown":     {"ada", "/forge dance\n/forge retest", reporterv1.AnswerRequest_REACTION_CONFUSED, "There is no such command. " + plan.HelpText, 1},
		"twice the same":  {"ada", "/forge retest\n/forge retest", reporterv1.AnswerRequest_REACTION_SEEN, "", 1},
		"with help":       {"ada", "/forge help\n/forge cancel", reporterv1.AnswerRequest_REACTION_CONFUSED, plan.HelpText + "\n\n" + nothing, 0},
		"unknown, reader": {"eve", "/forge dance\n/forge sing", reporterv1.AnswerRequest_REACTION_CONFUSED, "There is no such command. " + plan.HelpText, 0},
		"a reader": {
			"eve", "/forge retest\n/forge help", reporterv1.AnswerRequest_REACTION_REFUSED,
			"`/forge retest`: Nothing done: eve has no write access to Acme/shop.\n\nNothing done: eve has no write access to Acme/shop.", 0,
		},
		"too many": {
			"ada", strings.Repeat("/forge help\n\n/forge retest\n\n", 3), reporterv1.AnswerRequest_REACTION_CONFUSED, "Of one comment the first 5 commands are carried out.", 1,
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.github.shows(opened(1, "aaa"))
			r.send(commentBy(c.login, c.body))
			a := r.answered(1)[0]
			if a.GetReaction() != c.reaction || (a.GetText() != c.text && (name != "too many" || !strings.HasSuffix(a.GetText(), "\n\n"+c.text))) {
				t.Errorf("answered %v %q, want %v %q", a.GetReaction(), a.GetText(), c.reaction, c.text)
			}
			if found, _ := trigger.Commands(a.GetText()); len(found) > 0 {
				t.Errorf("Forge would take its own words for a command: %q", a.GetText())
			}
			if len(r.all()) != c.builds {
				t.Errorf("built %v", r.all())
			}
		})
	}
}

// The first command of a comment fails for good; the one behind it counts.
func TestCommandThatFailsDoesNotStopTheNext(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	running := r.built(r.github.shows(opened(1, "aaa")))
	r.send(commentBy("ada", "/forge approve 123456789abc\n/forge cancel"))
	r.becomes(running, schedulerv1.Build_STATE_CANCELLED)
}
