package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// answered waits until the reporter has been asked for as many answers, and
// returns them.
func (r *rig) answered(count int) (all []*reporterv1.AnswerRequest) {
	r.t.Helper()
	kittest.Eventually(r.t, patience, func() error {
		r.reporter.set(func(f *fakeReporter) { all = slices.Clone(f.answers) })
		if len(all) != count {
			return fmt.Errorf("answers %v, want %d", all, count)
		}
		return nil
	})
	return all
}

func TestCommandsAreAnswered(t *testing.T) {
	const (
		done, seen        = reporterv1.AnswerRequest_REACTION_DONE, reporterv1.AnswerRequest_REACTION_SEEN
		confused, refused = reporterv1.AnswerRequest_REACTION_CONFUSED, reporterv1.AnswerRequest_REACTION_REFUSED
	)
	for name, c := range map[string]struct {
		login, body string
		before      func(r *rig) // what is known of the pull request; nothing where nil
		reaction    reporterv1.AnswerRequest_Reaction
		text        string
	}{
		"retest":            {login: "ada", body: "/forge retest", reaction: seen},
		"retest, no config": {login: "ada", body: "/forge retest", before: func(r *rig) { r.config.set("aaa", absent); r.config.set("base", absent) }, reaction: confused, text: "Nothing done: no .forge.yml at aaa."},
		"retest, config at the base alone": {
			login: "ada", body: "/forge retest", before: func(r *rig) { r.config.set("aaa", absent) }, reaction: confused, // the status tells
		},
		"retest, bad config": {
			login: "ada", body: "/forge retest", before: func(r *rig) { r.config.set("aaa", invalid) }, reaction: confused, // the status tells
		},
		"cancel":         {login: "ada", body: "/forge cancel", before: func(r *rig) { r.built(opened(1, "aaa")) }, reaction: done},
		"cancel nothing": {login: "ada", body: "/forge cancel", reaction: confused, text: "Nothing done: ada asked for it, and nothing of it was queued or running."},
		"help":           {login: "root", body: "/forge help", reaction: done, text: plan.HelpText},
		"a reader":       {login: "eve", body: "/forge retest", reaction: refused, text: "Nothing done: eve has no write access to Acme/shop."},
		"unknown": {
			login: "eve", body: "/forge @everybody", reaction: confused, text: "There is no such command. " + plan.HelpText,
		},
		"closed": {
			login: "ada", body: "/forge retest", before: func(r *rig) { r.github.set(func(g *fakeGitHub) { g.pulls[1].Open = false }) },
			reaction: confused, text: "Nothing done: #1 is closed.",
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			r.start()
			r.github.shows(opened(1, "aaa"))
			if c.before != nil {
				c.before(r)
			}
			comment := commentBy(c.login, c.body)
			r.send(comment)
			a := r.answered(1)[0]
			if a.GetReaction() != c.reaction || a.GetText() != c.text {
				t.Errorf("answered %v %q, want %v %q", a.GetReaction(), a.GetText(), c.reaction, c.text)
			}
			if a.GetRepository().GetId() != 7 || a.GetInstallationId() != 3 || a.GetCommentId() != comment.GetIssueComment().GetCommentId() || a.GetPullRequest() != 1 {
				t.Errorf("answered %v", a)
			}
			if found, _ := trigger.Commands(a.GetText()); len(found) > 0 {
				t.Errorf("Forge would take its own words for a command: %q", a.GetText())
			}
		})
	}
}

func TestApprovalIsAnswered(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const head = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
		r.send(r.github.shows(fromFork("eve", opened(1, head))))
		blocked := r.all()[0]
		for n, c := range []struct {
			login, body string
			reaction    reporterv1.AnswerRequest_Reaction
			text        string
		}{
			{"eve", "/forge approve 3f2a91c0d5b6", reporterv1.AnswerRequest_REACTION_REFUSED, "Nothing done: eve has no write access to Acme/shop."},
			{"ada", "/forge retest", reporterv1.AnswerRequest_REACTION_CONFUSED, "Nothing done: 3f2a91c waits for approval, as [" + blocked.GetId() + "](" + blocked.GetUrl() + ")."},
			{"ada", "/forge approve 3f2a91c0d5b6", reporterv1.AnswerRequest_REACTION_DONE, ""},
			{"root", "/forge approve 3f2a91c0d5b6", reporterv1.AnswerRequest_REACTION_CONFUSED, "Nothing done: 3f2a91c was let run already by ada."},
		} {
			comment := commentBy(c.login, c.body)
			r.send(comment)
			if a := r.answered(n + 1)[n]; a.GetReaction() != c.reaction || a.GetText() != c.text {
				t.Errorf("%s: answered %v %q, want %v %q", c.body, a.GetReaction(), a.GetText(), c.reaction, c.text)
			}
		}
	})
}

// One comment is one wish, whichever deliveries tell of it, and is answered once,
// however long the reporter is away.
func TestCommentIsCarriedOutAndAnsweredOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.pass(r.built(r.github.shows(opened(1, "aaa"))))
		r.reporter.set(func(f *fakeReporter) { f.down = true })
		comment := commentBy("ada", "/forge retest")
		second := r.built(comment)
		kittest.Eventually(t, patience, func() error {
			err := fault.New(fault.NotFound, "nothing was tried")
			r.reporter.set(func(f *fakeReporter) {
				if f.refused > 0 {
					err = nil
				}
			})
			return err
		})
		r.pass(second)
		if d := r.again(comment); !slices.Equal(d.GetBuildIds(), []string{second}) || d.GetReason() != eventv1.Reason_REASON_BUILT {
			t.Errorf("in another delivery: %v", d)
		}
		r.stop()
		r.reporter.set(func(f *fakeReporter) { f.down = false })
		r.clock.Advance(time.Hour)
		r.start()
		r.answered(1)
		r.again(comment)
		r.settled()
		r.answered(1)
		if len(r.all()) != 2 {
			t.Errorf("built %v", r.all())
		}
	})
}

func TestBotsAndPlainCommentsGetNoAnswer(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	r.github.shows(opened(1, "aaa"))
	bot, help := commentBy("ada", "/forge retest"), commentBy("root", "/forge help")
	bot.GetIssueComment().Author.Type = eventv1.Account_TYPE_BOT
	onIssue := commentBy("ada", "/forge help")
	onIssue.GetIssueComment().OnPullRequest = false
	for _, comment := range []*eventv1.Event{bot, onIssue, commentBy("ada", "well done"), help} {
		r.send(comment)
	}
	if a := r.answered(1)[0]; a.GetCommentId() != help.GetIssueComment().GetCommentId() {
		t.Errorf("answered %v", a)
	}
}
