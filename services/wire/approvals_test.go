package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// release is a .forge.yml that takes tags to three environments.
func release(production string) string {
	return lines(
		"image: busybox", "execute: 'true'", "deploy:",
		"  staging: {tags: ['v*'], run: 'echo staging has $FORGE_TAG by $FORGE_ACTION'}",
		"  canary: {after: staging, run: 'echo canary has $FORGE_TAG by $FORGE_ACTION', url: 'https://canary.example.com'}",
		"  production: {after: canary, "+production+", run: 'echo production has $FORGE_TAG by $FORGE_ACTION'}",
	)
}

// deployRun is the check run of the newest deploy of a commit to an environment, which
// says such a thing.
func deployRun(t *testing.T, w *world, sha, environment, says string) (found githubsim.CheckRun) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		runs, err := w.sim.CheckRuns(owner, repo, sha)
		must(t, err)
		for _, run := range runs {
			if run.Name == "Forge / deploy "+environment && strings.Contains(run.Title, says) {
				found = run
				return nil
			}
		}
		return fmt.Errorf("no run of %s at %.7s says %q: %+v", environment, sha, says, runs)
	})
	return found
}

// approveBuild asks the JSON API to let a deploy go.
func approveBuild(t *testing.T, w *world, buildID, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.http+"/v1/builds/"+buildID+":approve", strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+adminToken)
	answer, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(said)
}

// deploymentsOf are the environments that GitHub knows deployments of a commit to, each
// with the state of the last.
func deploymentsOf(t *testing.T, w *world, sha string) map[string]string {
	t.Helper()
	all, err := w.sim.Deployments(owner, repo)
	must(t, err)
	states := map[string]string{}
	for _, d := range all {
		if d.SHA == sha {
			states[d.Environment] = d.State()
		}
	}
	return states
}

// A release goes by its tag to staging and the canary, and to production once one lets
// it who may at that moment.
func TestATagGoesToThreeEnvironments(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": release("approval: true, approvers: [Ada]")})
		w.env = append(w.env, "FORGE_REPORT=both")
		w.deploy(t, d)
		for login, role := range map[string]string{"ada": "write", "bob": "admin", "eve": "read"} {
			must(t, w.sim.SetPermission(owner, repo, login, role))
		}
		head, err := w.sim.Head(owner, repo, "main")
		must(t, err)
		must(t, w.sim.CreateTag(owner, repo, "v1.0", "main"))
		w.shows(t, head, "forge/deploy-staging", "success")
		canary := w.shows(t, head, "forge/deploy-canary", "success")
		if log := w.log(t, canary.TargetURL); !strings.Contains(log, "canary has v1.0 by deploy-canary") {
			t.Errorf("the canary printed %q", log)
		}
		if status := w.shows(t, head, "forge/deploy-production", "pending"); status.Description != "Needs approval by ada" {
			t.Errorf("%+v", status)
		}
		run := deployRun(t, w, head, "production", "Needs approval by ada")
		if len(run.Actions) != 1 || run.Actions[0].Identifier != "approve" {
			t.Errorf("%+v", run.Actions)
		}
		press := func(login, says string) {
			t.Helper()
			must(t, w.sim.RequestAction(owner, repo, run.ID, "approve", login))
			w.until(t, "check_run", says)
		}
		press("mallory", "ignored: mallory has no write access to "+owner+"/"+repo)
		press("eve", "ignored: eve has no write access to "+owner+"/"+repo)
		press("bob", "ignored: bob is not among those who let deploys to production go: ada")
		must(t, w.sim.SetPermission(owner, repo, "ada", "read"))
		press("ada", "ignored: ada has no write access to "+owner+"/"+repo)
		if code, said := approveBuild(t, w, run.ExternalID, `{"by": "ada"}`); code != http.StatusForbidden || !strings.Contains(said, "ada has no write access") {
			t.Errorf("%d %s", code, said)
		}
		kittest.Eventually(t, patience, func() error {
			if got := deploymentsOf(t, w, head); got["staging"] != "success" || got["canary"] != "success" || got["production"] != "pending" {
				return fmt.Errorf("GitHub knows of %v", got)
			}
			return nil
		})
		must(t, w.sim.SetPermission(owner, repo, "ada", "maintain"))
		press("ada", fmt.Sprintf("approved: %.7s goes to production, by ada", head))
		production := w.shows(t, head, "forge/deploy-production", "success")
		if log := w.log(t, production.TargetURL); !strings.Contains(log, "production has v1.0 by deploy-production") {
			t.Errorf("production printed %q", log)
		}
		answer := &schedulerv1.GetEnvironmentResponse{}
		kittest.Eventually(t, patience, func() error {
			must(t, protojson.Unmarshal([]byte(w.place(t, "production", "", "")), answer))
			if b := answer.GetEnvironment().GetDeployed(); b.GetApprovedBy() != "ada" || b.GetApproveTime() == nil || b.GetSha() != head {
				return fmt.Errorf("production runs %v", b)
			}
			return nil
		})

		// Two more tags: the newer is let go, by the API, and the older is not any more.
		older := w.push(t, "main", files("file", "older"))
		must(t, w.sim.CreateTag(owner, repo, "v1.1", "main"))
		w.shows(t, older, "forge/deploy-production", "pending")
		newer := w.push(t, "main", files("file", "newer"))
		must(t, w.sim.CreateTag(owner, repo, "v1.2", "main"))
		w.shows(t, newer, "forge/deploy-production", "pending")
		if code, said := approveBuild(t, w, deployRun(t, w, newer, "production", "Needs approval").ExternalID, "{}"); code != http.StatusOK {
			t.Fatalf("%d %s", code, said)
		}
		w.shows(t, newer, "forge/deploy-production", "success")
		late := deployRun(t, w, older, "production", "uperseded")
		if code, said := approveBuild(t, w, late.ExternalID, "{}"); code != http.StatusBadRequest || !strings.Contains(said, "was superseded by build") {
			t.Errorf("%d %s", code, said)
		}
	})
}

// A comment at the pull request lets go what it was merged as.
func TestACommentLetsAMergeGo(t *testing.T) {
	w := newWorld(t, map[string]string{".forge.yml": lines(
		"image: busybox", "execute: 'true'",
		"deploy: {staging: 'echo staging', production: {after: staging, approval: true, run: 'echo production'}}",
	)})
	w.up(t)
	number, _ := w.propose(t, "till", files("file", "mine"))
	merged := w.merge(t, number)
	if status := w.shows(t, merged, "forge/deploy-production", "pending"); status.Description != "Needs approval: /forge deploy production" {
		t.Errorf("%+v", status)
	}
	for _, c := range []struct{ login, says string }{
		{"eve", "ignored: eve has no write access to " + owner + "/" + repo},
		{"octocat", fmt.Sprintf("approved: %.7s goes to production, by octocat", merged)},
	} {
		_, err := w.sim.Comment(owner, repo, number, c.login, "/forge deploy production")
		must(t, err)
		w.until(t, "issue_comment", c.says)
	}
	w.shows(t, merged, "forge/deploy-production", "success")
}

func TestThirdEnvironmentIsFrozenAndRolledBack(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": lines("image: busybox", "execute: 'true'", "deploy: {canary: {branches: [main], run: 'echo canary $FORGE_SHA'}}")})
		w.deploy(t, d)
		good := w.push(t, "main", files("file", "good"))
		to := w.shows(t, good, "forge/deploy-canary", "success")
		bad := w.push(t, "main", files("file", "bad"))
		w.shows(t, bad, "forge/deploy-canary", "success")
		w.place(t, "canary", "freeze", `{"message": "the bad one must go"}`)
		next := w.push(t, "main", files("file", "next"))
		if status := w.shows(t, next, "forge/deploy-canary", "pending"); status.Description != "Waiting: canary is frozen: the bad one must go" {
			t.Errorf("%+v", status)
		}
		id := to.TargetURL[strings.LastIndex(to.TargetURL, "/")+1:]
		w.place(t, "canary", "rollBack", `{"build_id": "`+id+`"}`)
		kittest.Eventually(t, patience, func() error {
			answer := &schedulerv1.GetEnvironmentResponse{}
			must(t, protojson.Unmarshal([]byte(w.place(t, "canary", "", "")), answer))
			if answer.GetEnvironment().GetDeployed().GetRollBackOf() != id {
				return fmt.Errorf("canary runs %v", answer.GetEnvironment().GetDeployed())
			}
			return nil
		})
		w.place(t, "canary", "unfreeze", "{}")
		w.shows(t, next, "forge/deploy-canary", "success")
	})
}

// Neither a fork nor a branch makes itself an environment, or a way to one.
func TestNobodyMakesHimselfAWayToProduction(t *testing.T) {
	w := newWorld(t, map[string]string{".forge.yml": release("approval: true, approvers: [octocat]")})
	w.env = append(w.env, "FORGE_FORK_POLICY=run")
	w.up(t)
	mine := lines(
		"image: busybox", "execute: 'true'", "deploy:",
		"  evil: {branches: ['**'], tags: ['**'], run: 'echo evil'}",
		"  chained: {after: evil, run: 'echo chained'}",
		"  production: {branches: ['**'], tags: ['**'], run: 'echo production'}",
		"  staging: {branches: ['**'], tags: ['v*'], run: 'echo staging'}",
	)
	must(t, w.sim.Fork(owner, repo, "eve"))
	forked, err := w.sim.Commit("eve", repo, "main", githubsim.Commit{Files: map[string]string{".forge.yml": mine}, Author: "eve"})
	must(t, err)
	_, err = w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "Mine", Head: "eve:main", Base: "main", Author: "eve"})
	must(t, err)
	w.shows(t, forked, "forge/test", "success")
	_, proposed := w.propose(t, "mine", files(".forge.yml", mine))
	w.shows(t, proposed, "forge/test", "success")
	w.until(t, "push", "ignored: deploy.staging in .forge.yml of main does not name mine")
	// A tag that the default branch's file names takes it to staging, and there it ends.
	must(t, w.sim.CreateTag(owner, repo, "v6.6", "mine"))
	w.shows(t, proposed, "forge/deploy-staging", "success")
	w.settled(t, "fence")
	for _, sha := range []string{forked, proposed} {
		var names []string
		for name := range deploymentsOf(t, w, sha) {
			names = append(names, name)
		}
		slices.Sort(names)
		if want := map[string]string{proposed: "staging"}[sha]; strings.Join(names, " ") != want {
			t.Errorf("%.7s was deployed to %v, want %q", sha, names, want)
		}
	}
}
