package wire_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// until waits for a decision of the scheduler about an event of this kind, told
// by how its text begins.
func (s *server) until(t *testing.T, event, text string) {
	t.Helper()
	deliveries := gatewayv1.NewDeliveryServiceClient(s.dial(t, "gateway"))
	kittest.Eventually(t, patience, func() error {
		list, err := deliveries.ListDeliveries(asAdmin(t.Context()), &gatewayv1.ListDeliveriesRequest{Event: event, PageSize: 500})
		if err != nil {
			return err
		}
		var all []string
		for _, d := range list.GetDeliveries() {
			for _, forward := range d.GetForwards() {
				if said := forward.GetDecision().GetText(); forward.GetReceiver() == "scheduler" && strings.HasPrefix(said, text) {
					return nil
				}
				all = append(all, forward.GetDecision().GetText())
			}
		}
		return fmt.Errorf("no %s was decided %q: %q", event, text, all)
	})
}

// builds are those of a commit, the newest first.
func (s *server) builds(t testing.TB, sha string) []*schedulerv1.Build {
	t.Helper()
	list, err := schedulerv1.NewBuildServiceClient(s.dial(t, "scheduler")).ListBuilds(asAdmin(t.Context()), &schedulerv1.ListBuildsRequest{Sha: sha})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetBuilds()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) comment(t *testing.T, number int, author, body string) (id int64) {
	t.Helper()
	id, err := w.sim.Comment(owner, repo, number, author, body)
	must(t, err)
	return id
}

// answered waits until Forge has reacted to a comment, and holds what it has said
// on the pull request so far: how each of its comments begins.
func (w *world) answered(t *testing.T, number int, id int64, reaction string, said ...string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		all, err := w.sim.Comments(owner, repo, number)
		must(t, err)
		var reactions, texts []string
		for _, one := range all {
			if one.ID == id {
				reactions = one.Reactions
			}
			if strings.HasSuffix(one.Author, "[bot]") {
				texts = append(texts, one.Body)
			}
		}
		if !slices.Equal(reactions, []string{reaction}) || !slices.EqualFunc(texts, said, strings.HasPrefix) {
			return fmt.Errorf("comment %d has %q, said was %q; want %q and %q", id, reactions, texts, reaction, said)
		}
		return nil
	})
}

// merges waits until the merge queue has merged a pull request.
func (w *world) merges(t *testing.T, number int) (sha string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		p, err := w.sim.PullRequest(owner, repo, number)
		if sha = p.MergeCommit; err == nil && !p.Merged {
			err = fmt.Errorf("#%d is not merged", number)
		}
		return err
	})
	return sha
}

// The merge queue merges what Forge has passed, and Forge deploys it.
func TestMergeQueue(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	must(t, w.sim.RequireStatus(owner, repo, "forge/test"))
	number, sha := w.propose(t, "feature", files("other", "a file\n"))
	w.shows(t, sha, "forge/test", "success")
	must(t, w.sim.Enqueue(owner, repo, number))
	merged := w.merges(t, number)
	w.shows(t, merged, "forge/test", "success")
	w.shows(t, merged, "forge/deploy-staging", "success")

	// One that leaves the queue is not tested further.
	slow, _ := w.propose(t, "slow", files("test.sh", "#!/bin/sh\nsleep 300\n"))
	must(t, w.sim.Enqueue(owner, repo, slow))
	queue, err := w.sim.MergeQueue(owner, repo)
	must(t, err)
	w.shows(t, queue[0].HeadSHA, "forge/test", "pending")
	must(t, w.sim.Dequeue(owner, repo, slow))
	status := w.shows(t, queue[0].HeadSHA, "forge/test", "error")
	if status.Description != "Cancelled: the merge group was destroyed" {
		t.Errorf("the status says %q", status.Description)
	}
	must(t, w.sim.ClosePullRequest(owner, repo, slow))
}

// A stranger's fork waits for somebody with write access, each commit anew.
func TestForkWithApproval(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	must(t, w.sim.Fork(owner, repo, "eve"))
	patch := func(text string) string {
		sha, err := w.sim.Commit("eve", repo, "main", githubsim.Commit{Files: map[string]string{"patch": text}, Author: "eve"})
		must(t, err)
		return sha
	}
	first := patch("one\n")
	number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "A patch", Head: "eve:main", Base: "main"})
	must(t, err)
	if status := w.shows(t, first, "forge/test", "pending"); !strings.Contains(status.Description, "approv") {
		t.Errorf("the status says %q", status.Description)
	}
	refused := "Nothing done: eve has no write access to " + owner + "/" + repo
	w.answered(t, number, w.comment(t, number, "eve", "/forge approve "+first), "-1", refused)
	w.until(t, "issue_comment", "ignored: eve has no write access to "+owner+"/"+repo)
	waits := "Nothing done: " + first[:7] + " waits for approval, as ["
	w.answered(t, number, w.comment(t, number, "octocat", "/forge retest"), "confused", refused, waits)
	w.answered(t, number, w.comment(t, number, "octocat", "Looks harmless.\n\n/forge approve "+first), "+1", refused, waits)
	w.shows(t, first, "forge/test", "success")
	w.until(t, "issue_comment", "approved: "+first[:7]+" by octocat")

	second := patch("two\n")
	w.until(t, "pull_request", "blocked: ")
	w.shows(t, second, "forge/test", "pending")
	w.comment(t, number, "octocat", "again, /forge approve "+first[:12]+" would be wrong\n/forge approve "+first[:12])
	w.until(t, "issue_comment", "ignored: the head of #1 is "+second[:7]+", not "+first[:12])
	blocked := w.builds(t, second)
	if len(blocked) != 1 || blocked[0].GetState() != schedulerv1.Build_STATE_BLOCKED || !blocked[0].GetFork() {
		t.Fatalf("builds of the second commit: %v", blocked)
	}
	_, err = schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).ApproveBuild(asAdmin(t.Context()), &schedulerv1.ApproveBuildRequest{BuildId: blocked[0].GetId()})
	must(t, err)
	w.shows(t, second, "forge/test", "success")

	// By hand a commit that only the fork has cannot be had at all.
	_, err = schedulerv1.NewBuildServiceClient(w.dial(t, "scheduler")).CreateBuild(asAdmin(t.Context()),
		&schedulerv1.CreateBuildRequest{Repository: owner + "/" + repo, Branch: "main", Sha: second})
	if err == nil || !strings.Contains(err.Error(), "branch main of "+owner+"/"+repo+" does not hold the commit "+second) {
		t.Errorf("a fork's commit by hand: %v", err)
	}
}

func TestRetestByComment(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	number, sha := w.propose(t, "feature", files("other", "a file\n"))
	w.shows(t, sha, "forge/test", "success")
	w.answered(t, number, w.comment(t, number, "octocat", "/forge help"), "+1", "People with write access")
	w.answered(t, number, w.comment(t, number, "octocat", "/forge retest"), "eyes", "People with write access")
	w.until(t, "issue_comment", "built")
	kittest.Eventually(t, patience, func() error {
		all := w.builds(t, sha)
		if len(all) != 2 || all[0].GetState() != schedulerv1.Build_STATE_PASSED || all[0].GetRetryOf() != all[1].GetId() {
			return fmt.Errorf("builds %v", all)
		}
		if !strings.HasSuffix(w.shows(t, sha, "forge/test", "success").TargetURL, all[0].GetId()) {
			return fmt.Errorf("the status does not lead to %s", all[0].GetId())
		}
		return nil
	})
}

// A pull request that is aimed at a branch which nothing is built for is not
// tested further, and is again once it is back.
func TestPullRequestWithAnotherBase(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	must(t, w.sim.CreateBranch(owner, repo, "feature-base", "main"))
	number, sha := w.propose(t, "slow", files("test.sh", "#!/bin/sh\nsleep 300\n"))
	w.shows(t, sha, "forge/test", "pending")
	must(t, w.sim.ChangeBase(owner, repo, number, "feature-base"))
	if status := w.shows(t, sha, "forge/test", "error"); status.Description != "Cancelled: base branch is feature-base" {
		t.Errorf("the status says %q", status.Description)
	}
	must(t, w.sim.ChangeBase(owner, repo, number, "main"))
	w.shows(t, sha, "forge/test", "pending")
	must(t, w.sim.ChangeBase(owner, repo, number, "production"))
	if status := w.shows(t, sha, "forge/test", "error"); status.Description != "Superseded: base branch is production" {
		t.Errorf("the status says %q", status.Description)
	}
	w.shows(t, sha, "forge/staging", "success")
}

// A push that arrives after the one that followed it changes nothing.
func TestPushesOutOfOrder(t *testing.T) {
	w := newWorld(t, hello())
	w.up(t)
	_, first := w.propose(t, "feature", files("other", "one\n"))
	w.shows(t, first, "forge/test", "success")
	must(t, w.sim.WaitDeliveries(t.Context()))
	w.sim.DropDeliveries(2) // push and pull_request
	second := w.push(t, "feature", files("other", "two\n"))
	must(t, w.sim.WaitDeliveries(t.Context()))
	third := w.push(t, "feature", files("other", "three\n"))
	w.shows(t, third, "forge/test", "success")

	w.deliverDropped(t, "pull_request")
	w.until(t, "pull_request", "ignored: something newer is known of #1")
	if late := w.builds(t, second); len(late) != 0 {
		t.Errorf("built %v", late)
	}
	w.shows(t, third, "forge/test", "success")
}

// deliverDropped delivers what GitHub could not, of this kind of event.
func (w *world) deliverDropped(t *testing.T, event string) {
	t.Helper()
	all := w.sim.Deliveries()
	at := slices.IndexFunc(all, func(d githubsim.Delivery) bool { return d.Event == event && d.StatusCode == 0 })
	if at < 0 {
		t.Fatal("nothing was dropped")
	}
	signature := hmac.New(sha256.New, []byte(webhookSecret))
	signature.Write(all[at].Payload)
	req, err := http.NewRequest(http.MethodPost, w.http+"/v1/listen", bytes.NewReader(all[at].Payload))
	must(t, err)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": all[at].Event, "X-GitHub-Delivery": all[at].GUID,
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(signature.Sum(nil)),
	} {
		req.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(req)
	must(t, err)
	must(t, answer.Body.Close())
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("the late delivery was answered %s", answer.Status)
	}
}

func TestTagIsBuiltAsItsPushSays(t *testing.T) {
	with := hello()
	with[".forge.yml"] += "push: {tags: ['v*'], execute: ['echo releasing $FORGE_REF']}\n"
	w := newWorld(t, with)
	w.up(t)
	must(t, w.sim.CreateTag(owner, repo, "v1", "main"))
	sha, err := w.sim.Head(owner, repo, "main")
	must(t, err)
	if log := w.log(t, w.shows(t, sha, "forge/tag", "success").TargetURL); !strings.Contains(log, "releasing refs/tags/v1") {
		t.Errorf("it printed %q", log)
	}
	must(t, w.sim.DeleteTag(owner, repo, "v1"))
	w.until(t, "push", "ignored: refs/tags/v1 was deleted")
}
