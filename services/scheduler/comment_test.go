package scheduler

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/plan"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// commentBy is a comment of its own for each author and text.
func commentBy(login, body string) *eventv1.Event {
	id := int64(crc32.ChecksumIEEE([]byte(login+body))) + 1
	return sentBy(login, happened("issue_comment", "created", &eventv1.IssueCommentEvent{
		Number: 1, OnPullRequest: true, Open: true, CommentId: id, CreateTime: timestamppb.New(noon), Body: body, AuthorAssociation: "OWNER",
		Author: &eventv1.Account{Login: login, Type: eventv1.Account_TYPE_USER},
	}))
}

func TestCommandIsTheFirstLineThatIsOne(t *testing.T) {
	for body, want := range map[string]string{
		"/forge retest":                            "retest ",
		"/Forge  Retest  ":                         "retest ",
		"please\r\n/forge retest\r\nthanks":        "retest ",
		"/forge approve 3F2A91C0D5B6":              "approve 3f2a91c0d5b6",
		"/forge cancel\n/forge retest":             "cancel ",
		"/forge":                                   " ",
		"> /forge retest":                          "none",
		"    /forge retest":                        "none",
		"use `/forge retest`":                      "none",
		"/forgery retest":                          "none",
		"/forge retest because it failed for once": "none",
		"": "none",
	} {
		found, _ := trigger.Commands(body)
		got := "none"
		if len(found) > 0 {
			got = found[0].Name + " " + found[0].Argument
		}
		if got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
}

func TestCommentsAreDecided(t *testing.T) {
	const head = "3f2a91c0d5b6e7f8091a2b3c4d5e6f708192a3b4"
	change := func(e *eventv1.Event, with func(*eventv1.Event)) *eventv1.Event { with(e); return e }
	for name, c := range map[string]struct {
		comment *eventv1.Event
		pull    func(*eventv1.PullRequest) // before it is opened
		policy  string
		reason  eventv1.Reason
		text    string
	}{
		"retest while it runs":      {comment: commentBy("ada", "/forge retest"), reason: eventv1.Reason_REASON_DUPLICATE, text: "ignored: 3f2a91c is being built already, as "},
		"cancel":                    {comment: commentBy("root", "/forge cancel"), reason: eventv1.Reason_REASON_CANCELLED, text: "cancelled: root asked for it"},
		"help":                      {comment: commentBy("ada", "/forge help"), reason: eventv1.Reason_REASON_ANSWERED, text: "help: " + plan.Commands},
		"approve no fork":           {comment: commentBy("ada", "/forge approve 3f2a91c0d5b6"), reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: #1 is not from a fork and needs no approval"},
		"approve nothing":           {comment: commentBy("ada", "/forge approve"), reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: name what is approved: /forge approve and the head's whole sha, or at least 12 digits of it"},
		"approve too few digits":    {comment: commentBy("ada", "/forge approve 3f2a91c0d5b"), reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: name what is approved"},
		"approve another commit":    {comment: commentBy("ada", "/forge approve 3f2a91c0d5b7"), reason: eventv1.Reason_REASON_STALE, text: "ignored: the head of #1 is 3f2a91c, not 3f2a91c0d5b7"},
		"unknown command":           {comment: commentBy("ada", "/forge dance"), reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: /forge dance is no command: there are " + plan.Commands},
		"no command":                {comment: commentBy("ada", "well done"), reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: the comment is no command"},
		"by a reader":               {comment: commentBy("eve", "/forge retest"), reason: eventv1.Reason_REASON_NOT_ALLOWED, text: "ignored: eve has no write access to Acme/shop"},
		"help to a reader":          {comment: commentBy("eve", "/forge help"), reason: eventv1.Reason_REASON_NOT_ALLOWED, text: "ignored: eve has no write access to Acme/shop"},
		"by somebody nobody knows":  {comment: commentBy("mallory", "/forge cancel"), reason: eventv1.Reason_REASON_NOT_ALLOWED, text: "ignored: mallory has no write access to Acme/shop"},
		"approved by its author":    {comment: commentBy("eve", "/forge approve 3f2a91c0d5b6"), reason: eventv1.Reason_REASON_NOT_ALLOWED, text: "ignored: eve has no write access to Acme/shop"},
		"policy never":              {comment: commentBy("ada", "/forge approve 3f2a91c0d5b6"), policy: trigger.ForkNever, pull: ofEve, reason: eventv1.Reason_REASON_FORK_IGNORED, text: "ignored: pull requests from forks are not built here"},
		"retest under policy never": {comment: commentBy("ada", "/forge retest"), policy: trigger.ForkNever, pull: ofEve, reason: eventv1.Reason_REASON_FORK_IGNORED, text: "ignored: pull requests from forks are not built here"},
		"approve under policy run":  {comment: commentBy("ada", "/forge approve 3f2a91c0d5b6"), policy: trigger.ForkRun, pull: ofEve, reason: eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: pull requests from forks need no approval here"},
		"retest of what is blocked": {comment: commentBy("ada", "/forge retest"), pull: ofEve, reason: eventv1.Reason_REASON_DUPLICATE, text: "ignored: 3f2a91c waits for approval, as "},
		"retest into another branch": {
			comment: commentBy("ada", "/forge retest"), pull: func(p *eventv1.PullRequest) { p.Base.Ref = "feature/x" },
			reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: base branch is feature/x",
		},
		"retest of a draft": {
			comment: commentBy("ada", "/forge retest"), pull: func(p *eventv1.PullRequest) { p.Draft = true },
			reason: eventv1.Reason_REASON_DUPLICATE, text: "ignored: 3f2a91c is being built already, as ",
		},
		"retest of a fork that is gone": {
			comment: commentBy("ada", "/forge retest"), pull: func(p *eventv1.PullRequest) { p.Head.Repository = nil },
			reason: eventv1.Reason_REASON_DUPLICATE, text: "ignored: 3f2a91c waits for approval, as ",
		},
		"approve a fork that is gone": {
			comment: commentBy("ada", "/forge approve 3f2a91c0d5b6"), pull: func(p *eventv1.PullRequest) { p.Head.Repository = nil },
			reason: eventv1.Reason_REASON_APPROVED, text: "approved: 3f2a91c by ada",
		},
		"approve into another branch": {
			comment: commentBy("ada", "/forge approve 3f2a91c0d5b6"), pull: func(p *eventv1.PullRequest) { ofEve(p); p.Base.Ref = "feature/x" },
			reason: eventv1.Reason_REASON_BRANCH_IGNORED, text: "ignored: base branch is feature/x",
		},
		"deleted": {
			comment: change(commentBy("ada", "/forge retest"), func(e *eventv1.Event) { e.Action = "deleted" }),
			reason:  eventv1.Reason_REASON_ACTION_IGNORED, text: "ignored: action deleted",
		},
		"by a bot": {
			comment: change(commentBy("ada", "/forge retest"), func(e *eventv1.Event) { e.GetIssueComment().Author.Type = eventv1.Account_TYPE_BOT }),
			reason:  eventv1.Reason_REASON_NOT_ALLOWED, text: "ignored: ada has no write access to Acme/shop",
		},
		"edited": {
			comment: change(commentBy("ada", "/forge retest"), func(e *eventv1.Event) { e.Action = "edited" }),
			reason:  eventv1.Reason_REASON_ACTION_IGNORED, text: "ignored: action edited",
		},
		"on an issue": {
			comment: change(commentBy("ada", "/forge retest"), func(e *eventv1.Event) { e.GetIssueComment().OnPullRequest = false }),
			reason:  eventv1.Reason_REASON_NOT_ADDRESSED, text: "ignored: the comment is not on a pull request",
		},
		"without a number": {
			comment: change(commentBy("ada", "/forge retest"), func(e *eventv1.Event) { e.GetIssueComment().Number = 0 }),
			reason:  eventv1.Reason_REASON_MALFORMED, text: "malformed: an issue_comment without a repository or a number",
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := sqliteRig(t)
			if c.policy != "" {
				r.deps.Policy.Forks = c.policy
			}
			r.start()
			e := opened(1, head)
			if c.pull != nil {
				c.pull(pull(e))
			}
			r.send(r.github.shows(e))
			before := len(r.all())
			d := r.send(c.comment)
			if d.GetReason() != c.reason || !strings.HasPrefix(d.GetText(), c.text) {
				t.Errorf("decided %v %q, want %v %q", d.GetReason(), d.GetText(), c.reason, c.text)
			}
			if again := r.again(c.comment); again.GetReason() != c.reason || !strings.HasPrefix(again.GetText(), c.text) {
				t.Errorf("in another delivery: %v", again)
			}
			if len(r.all()) != before {
				t.Errorf("built %v", r.all())
			}
		})
	}
}

func ofEve(p *eventv1.PullRequest) {
	p.Author, p.Head.Repository = &eventv1.Account{Login: "eve"}, &eventv1.Repository{Id: 8}
}

func TestRetestBuildsTheHeadOnceMore(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.built(r.github.shows(opened(1, "aaa")))
		r.pass(first)
		comment := commentBy("ada", "/forge retest")
		second := r.built(comment)
		if d := r.send(comment); !slices.Equal(d.GetBuildIds(), []string{second}) || d.GetReason() != eventv1.Reason_REASON_BUILT {
			t.Errorf("the same delivery again: %v", d)
		}
		if b := r.build(second); second == first || b.GetRetryOf() != first || b.GetSha() != "aaa" || b.GetAction() != schedulerv1.Build_ACTION_TEST || b.GetPullRequest() != 1 {
			t.Errorf("%v", b)
		}
		r.pass(second)
		if b := r.shown("aaa", "forge/test", schedulerv1.Build_STATE_PASSED); b.GetId() != second {
			t.Errorf("GitHub is shown %s, not the newest", b.GetId())
		}
		// GitHub's event of the same head builds nothing more.
		if d := r.again(opened(1, "aaa")); d.GetReason() != eventv1.Reason_REASON_DUPLICATE || !slices.Equal(d.GetBuildIds(), []string{second}) {
			t.Errorf("%v", d)
		}
	})
}

func TestRetestBuildsWhatNoEventHasTold(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	r.github.shows(opened(1, "aaa"))
	r.built(commentBy("ada", "/forge retest"))
	if got := r.all(); len(got) != 1 || got[0].GetRef() != "refs/pull/1/head" || got[0].GetTitle() != "Add a till" || got[0].GetCommitCount() != 2 {
		t.Errorf("%v", got)
	}
	if d := r.send(opened(1, "aaa")); d.GetReason() != eventv1.Reason_REASON_DUPLICATE {
		t.Errorf("the event that was late: %v", d)
	}
}

func TestRetestOfAClosedPullRequestBuildsNothing(t *testing.T) {
	r := sqliteRig(t)
	r.start()
	e := r.github.shows(opened(1, "aaa"))
	r.github.set(func(*fakeGitHub) { pull(e).Open = false })
	if d := r.send(commentBy("ada", "/forge retest")); d.GetReason() != eventv1.Reason_REASON_GONE || d.GetText() != "ignored: #1 is closed" {
		t.Errorf("%v", d)
	}
}

func TestCommentsLeaveDeploysAlone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		test := r.built(r.github.shows(opened(1, "aaa")))
		deploy := r.built(mergedInto(1, "main", "m1"))
		if d := r.send(commentBy("ada", "/forge cancel")); !slices.Equal(d.GetBuildIds(), []string{test}) {
			t.Errorf("%v", d)
		}
		if b := r.becomes(test, schedulerv1.Build_STATE_CANCELLED); b.GetReason() != schedulerv1.Build_REASON_CANCEL_ASKED || b.GetMessage() != "asked for by ada" {
			t.Errorf("%v", b)
		}
		r.pass(deploy)
		for n := range 3 {
			r.send(commentBy("ada", fmt.Sprintf("%d\n/forge retest", n)))
		}
		for _, b := range r.all() {
			if b.GetAction() == schedulerv1.Build_ACTION_DEPLOY_STAGING && b.GetId() != deploy {
				t.Errorf("deployed again: %v", b)
			}
		}
	})
}
