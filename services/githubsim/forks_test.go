package githubsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/githubsim"
)

// forked is a pull request into acme/shop from mallory's fork, and its head.
func (w *world) forked() (number int, sha string) {
	w.t.Helper()
	w.must(w.sim.Fork("acme", "shop", "mallory"))
	sha, err := w.sim.Commit("mallory", "shop", "main", githubsim.Commit{Author: "mallory", Files: map[string]string{"evil.sh": "#!/bin/sh\n"}})
	w.must(err)
	number, err = w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "Trust me", Head: "mallory:main"})
	w.must(err)
	return number, sha
}

func TestForkIsReadThroughItsBase(t *testing.T) {
	w := newWorld(t)
	number, sha := w.forked()
	shop, ctx := w.shop(), t.Context()
	p, _, err := shop.PullRequests.Get(ctx, "acme", "shop", number)
	w.must(err)
	head := p.GetHead()
	if head.GetSHA() != sha || head.GetLabel() != "mallory:main" || head.GetRepo().GetFullName() != "mallory/shop" || !head.GetRepo().GetFork() {
		t.Errorf("got head %v", head)
	}
	if p.GetUser().GetLogin() != "mallory" || p.GetAuthorAssociation() != "NONE" || p.GetBase().GetRepo().GetFork() {
		t.Errorf("got %.300v", p)
	}
	for _, ref := range []string{sha, fmt.Sprintf("refs/pull/%d/head", number)} {
		file, _, _, err := shop.Repositories.GetContents(ctx, "acme", "shop", "evil.sh", &github.RepositoryContentGetOptions{Ref: ref})
		if err != nil || file.GetName() != "evil.sh" {
			t.Errorf("%s: got %v, error %v", ref, file, err)
		}
	}
	_, _, err = shop.Repositories.Get(ctx, "mallory", "shop")
	wantError(t, err, http.StatusNotFound, "Not Found")
	if _, _, err := shop.Repositories.CreateStatus(ctx, "acme", "shop", sha, &github.RepoStatus{State: new("success")}); err != nil {
		t.Errorf("a status at the base: %v", err)
	}
}

func TestPushToAForkSynchronizesItsPullRequest(t *testing.T) {
	w := newWorld(t)
	number, _ := w.forked()
	w.news()
	sha, err := w.sim.Commit("mallory", "shop", "main", githubsim.Commit{Author: "mallory", Files: map[string]string{"more": "more"}})
	w.must(err)
	w.settle()
	events := w.hooks.take(t)
	if len(events) != 1 {
		t.Fatalf("was told %d things, want the synchronize alone: the App is not installed on the fork", len(events))
	}
	e := events[0].(*github.PullRequestEvent)
	if e.GetAction() != "synchronize" || e.GetAfter() != sha || e.GetSender().GetLogin() != "mallory" || e.GetRepo().GetFullName() != "acme/shop" {
		t.Errorf("got %s to %s by %s", e.GetAction(), e.GetAfter(), e.GetSender().GetLogin())
	}
	merged, err := w.sim.Merge("acme", "shop", number)
	w.must(err)
	if head := w.head(); head != merged {
		t.Errorf("main is at %s, want %s", head, merged)
	}
}

func TestDeletedForkLeavesItsPullRequestOpen(t *testing.T) {
	w := newWorld(t)
	number, sha := w.forked()
	w.must(w.sim.DeleteRepository("mallory", "shop"))
	shop, ctx := w.shop(), t.Context()
	p, _, err := shop.PullRequests.Get(ctx, "acme", "shop", number)
	if err != nil || p.GetState() != "open" || p.GetHead().Repo != nil || p.GetHead().GetSHA() != sha {
		t.Errorf("got %.300v, error %v", p, err)
	}
	w.must(w.sim.ClosePullRequest("acme", "shop", number))
	if err := w.sim.ReopenPullRequest("acme", "shop", number); err == nil || err.Error() != "pull request acme/shop#1 is closed" {
		t.Errorf("got error %v", err)
	}
	_, _, err = shop.PullRequests.Edit(ctx, "acme", "shop", number, &github.PullRequest{State: new("open")})
	wantError(t, err, http.StatusUnprocessableEntity, "cannot be reopened")
}

func TestForksRefuseWhatCannotBe(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.Fork("acme", "shop", "mallory"))
	_, unknown := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "x", Head: "eve:main"})
	_, missing := w.sim.OpenPullRequest("acme", "shop", githubsim.PullRequest{Title: "x", Head: "mallory:gone"})
	for want, err := range map[string]error{
		"repository mallory/shop exists already":                                        w.sim.Fork("acme", "shop", "mallory"),
		"repository acme/gone does not exist":                                           w.sim.Fork("acme", "gone", "mallory"),
		"open a pull request from eve:main into main of acme/shop: head is invalid":     unknown,
		"open a pull request from mallory:gone into main of acme/shop: head is invalid": missing,
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestPermissionsAreAskedOfGitHub(t *testing.T) {
	w := newWorld(t)
	w.forked()
	_, err := w.sim.Commit("acme", "shop", "main", githubsim.Commit{Author: "mona", Files: map[string]string{"x": "x"}})
	w.must(err)
	w.must(w.sim.SetPermission("acme", "shop", "lisa", "maintain"))
	w.must(w.sim.SetPermission("acme", "shop", "tom", "triage"))
	shop, ctx := w.shop(), t.Context()
	for login, want := range map[string]string{"octocat": "admin", "mona": "write", "lisa": "write", "tom": "read", "mallory": "none"} {
		level, _, err := shop.Repositories.GetPermissionLevel(ctx, "acme", "shop", login)
		if err != nil || level.GetPermission() != want || level.GetUser().GetLogin() != login {
			t.Errorf("%s: got %v, error %v, want %s", login, level, err, want)
		}
	}
	for _, login := range []string{"forge[bot]", "nobody", "acme"} {
		_, _, err := shop.Repositories.GetPermissionLevel(ctx, "acme", "shop", login)
		wantError(t, err, http.StatusNotFound, login+" is not a user")
	}
	if err := w.sim.SetPermission("acme", "shop", "tom", "boss"); err == nil || !strings.Contains(err.Error(), `there is no role "boss"`) {
		t.Errorf("got error %v", err)
	}
}

func TestCommentsAreToldAnsweredAndReactedTo(t *testing.T) {
	w := newWorld(t)
	number := w.pull("feature")
	w.news()
	id, err := w.sim.Comment("acme", "shop", number, "mona", "/forge retest")
	w.must(err)
	w.settle()
	told := w.hooks.take(t)[0].(*github.IssueCommentEvent)
	if told.GetAction() != "created" || told.GetComment().GetBody() != "/forge retest" || told.GetSender().GetLogin() != "mona" ||
		told.GetIssue().GetNumber() != number || !told.GetIssue().IsPullRequest() || told.GetComment().GetAuthorAssociation() != "NONE" {
		t.Errorf("got %v", told)
	}
	shop, ctx := w.shop(), t.Context()
	for range 2 { // the second changes nothing
		reaction, _, err := shop.Reactions.CreateIssueCommentReaction(ctx, "acme", "shop", id, "eyes")
		if err != nil || reaction.GetContent() != "eyes" || reaction.GetUser().GetLogin() != "forge[bot]" {
			t.Errorf("got %v, error %v", reaction, err)
		}
	}
	answer, _, err := shop.Issues.CreateComment(ctx, "acme", "shop", number, &github.IssueComment{Body: new("Nothing to run.")})
	w.must(err)
	_, _, err = shop.Issues.EditComment(ctx, "acme", "shop", answer.GetID(), &github.IssueComment{Body: new("Nothing ran.")})
	w.must(err)
	got, _, err := shop.Issues.GetComment(ctx, "acme", "shop", answer.GetID())
	if err != nil || got.GetBody() != "Nothing ran." || got.GetUser().GetType() != "Bot" {
		t.Errorf("got %v, error %v", got, err)
	}
	wantNews(t, w.news(), "issue_comment created #1 Nothing to run.", "issue_comment edited #1 Nothing ran.")
	all, _, err := shop.Issues.ListComments(ctx, "acme", "shop", number, &github.IssueListCommentsOptions{ListOptions: github.ListOptions{PerPage: 1, Page: 2}})
	if err != nil || len(all) != 1 || all[0].GetBody() != "Nothing ran." {
		t.Errorf("got %v, error %v", all, err)
	}
	reactions, _, err := shop.Reactions.ListIssueCommentReactions(ctx, "acme", "shop", id, nil)
	if err != nil || len(reactions) != 1 {
		t.Errorf("got %v, error %v", reactions, err)
	}
	comments, err := w.sim.Comments("acme", "shop", number)
	if err != nil || len(comments) != 2 || comments[0].Author != "mona" || len(comments[0].Reactions) != 1 || comments[0].Reactions[0] != "eyes" {
		t.Errorf("got %v, error %v", comments, err)
	}
}

func TestCommentsAreRefused(t *testing.T) {
	w := newWorld(t)
	number := w.pull("feature")
	id, err := w.sim.Comment("acme", "shop", number, "", "hello")
	w.must(err)
	shop, ctx := w.shop(), t.Context()
	say := func(number int, body string) error {
		_, _, err := shop.Issues.CreateComment(ctx, "acme", "shop", number, &github.IssueComment{Body: &body})
		return err
	}
	wantError(t, say(number, ""), http.StatusUnprocessableEntity, "Body cannot be blank")
	wantError(t, say(number, strings.Repeat("é", 65_537)), http.StatusUnprocessableEntity, "body is too long")
	wantError(t, say(7, "x"), http.StatusNotFound, "Not Found")
	_, _, err = shop.Reactions.CreateIssueCommentReaction(ctx, "acme", "shop", id, "shrug")
	wantError(t, err, http.StatusUnprocessableEntity, "Reaction content invalid")
	_, _, err = shop.Reactions.CreateIssueCommentReaction(ctx, "acme", "shop", 999_999, "eyes")
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, err = shop.Issues.GetComment(ctx, "acme", "shop", 999_999)
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, err = w.sim.Comment("acme", "shop", 7, "", "x")
	if err == nil {
		t.Error("a comment on no pull request")
	}

	narrow := func(permissions github.InstallationPermissions) error {
		client := w.client(w.token(&github.InstallationTokenOptions{Permissions: &permissions}))
		_, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", number, &github.IssueComment{Body: new("x")})
		return err
	}
	write := new("write")
	w.must(narrow(github.InstallationPermissions{Issues: write}))
	w.must(narrow(github.InstallationPermissions{PullRequests: write}))
	wantError(t, narrow(github.InstallationPermissions{Statuses: write}), http.StatusForbidden, "Resource not accessible by integration")
}
