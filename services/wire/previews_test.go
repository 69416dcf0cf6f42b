package wire_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/githubsim"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// previews is a .forge.yml that has a preview for each pull request.
func previews(more ...string) string {
	return lines(append([]string{
		"image: busybox", "execute: 'true'", "deploy:",
		"  preview:",
		"    name: preview-${pull_request}",
		"    url: https://pr-${pull_request}.example.org",
		"    run: 'echo up $FORGE_ENVIRONMENT at $FORGE_SHA by $FORGE_ACTION'",
		"    stop: 'echo down $FORGE_ENVIRONMENT at $FORGE_SHA by $FORGE_ACTION'",
	}, more...)...)
}

// deployedAt waits until GitHub has deployments to an environment with these states, the
// oldest first.
func deployedAt(t *testing.T, w *world, environment string, states ...string) (newest githubsim.Deployment) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		all, err := w.sim.Deployments(owner, repo)
		must(t, err)
		all = slices.DeleteFunc(all, func(d githubsim.Deployment) bool { return d.Environment != environment })
		var found []string
		for _, d := range all {
			found, newest = append(found, d.State()), d
		}
		if !slices.Equal(found, states) {
			return fmt.Errorf("GitHub has deployments to %s that are %v, want %v", environment, found, states)
		}
		return nil
	})
	return newest
}

// environmentsOf waits until the lists have these environments and no others.
func environmentsOf(t *testing.T, w *world, names ...string) {
	t.Helper()
	kittest.Eventually(t, patience, func() error {
		if listed := environmentsListed(t, w); !slices.Equal(listed, names) {
			return fmt.Errorf("listed are the environments %v, want %v", listed, names)
		}
		return nil
	})
}

func environmentsListed(t *testing.T, w *world) (names []string) {
	t.Helper()
	answer := &schedulerv1.ListEnvironmentsResponse{}
	must(t, protojson.Unmarshal(w.ask(t, http.MethodGet, w.http+"/v1/environments?repository="+owner+"/"+repo, ""), answer))
	for _, e := range answer.GetEnvironments() {
		names = append(names, e.GetName())
	}
	return names
}

func TestEachPullRequestHasAPreview(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": previews()})
		w.deploy(t, d)
		number, first := w.propose(t, "shop", files("a", "x"))
		name := fmt.Sprintf("preview-%d", number)
		up := w.shows(t, first, "forge/deploy-"+name, "success")
		if log := w.log(t, up.TargetURL); !strings.Contains(log, "up "+name+" at "+first+" by deploy-"+name) {
			t.Errorf("the deploy printed %q", log)
		}
		made := deployedAt(t, w, name, "success")
		if !made.Transient || made.Production || made.SHA != first {
			t.Errorf("%+v", made)
		}
		if last := made.Statuses[len(made.Statuses)-1]; last.EnvironmentURL != fmt.Sprintf("https://pr-%d.example.org", number) {
			t.Errorf("%+v", last)
		}
		environmentsOf(t, w, name)
		broken := w.push(t, "shop", files(".forge.yml", strings.Replace(previews(), "'true'", "'false'", 1)))
		w.shows(t, broken, "forge/test", "failure")
		second := w.push(t, "shop", files(".forge.yml", previews()))
		w.shows(t, second, "forge/deploy-"+name, "success")
		deployedAt(t, w, name, "inactive", "success")
		if statuses, err := w.sim.Statuses(owner, repo, broken); err != nil || statuses["forge/deploy-"+name].State != "" {
			t.Errorf("what failed is deployed: %v, %v", statuses, err)
		}

		must(t, w.sim.ClosePullRequest(owner, repo, number))
		down := w.shows(t, second, "forge/stop-"+name, "success")
		if log := w.log(t, down.TargetURL); !strings.Contains(log, "down "+name+" at "+second+" by stop-"+name) {
			t.Errorf("the teardown printed %q", log)
		}
		deployedAt(t, w, name, "inactive", "inactive")
		environmentsOf(t, w)

		must(t, w.sim.ReopenPullRequest(owner, repo, number))
		deployedAt(t, w, name, "inactive", "inactive", "success")
		environmentsOf(t, w, name)
		w.merge(t, number)
		deployedAt(t, w, name, "inactive", "inactive", "inactive")
		kittest.Eventually(t, patience, func() error {
			// The pull request into production, which follows, may have one of its own.
			if listed := environmentsListed(t, w); slices.Contains(listed, name) {
				return fmt.Errorf("listed are the environments %v", listed)
			}
			return nil
		})
	})
}

// A pull request that is closed while GitHub tells nobody loses its preview at the next
// look, as if GitHub had told, and the webhook that comes after all changes nothing.
func TestAPreviewEndsThoughGitHubDoesNotTell(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": previews()})
		w.deploy(t, d)
		deliveries := gatewayv1.NewDeliveryServiceClient(w.dial(t, "gateway"))
		look := func() (swept []string) {
			t.Helper()
			kittest.Eventually(t, patience, func() error { // once it runs, it takes turns with the look at the start
				found, err := deliveries.RecoverDeliveries(asAdmin(t.Context()), &gatewayv1.RecoverDeliveriesRequest{})
				swept = found.GetSweptDeliveryIds()
				return err
			})
			return swept
		}
		number, head := w.propose(t, "shop", files("a", "x"))
		_, other := w.propose(t, "other", files("b", "x"))
		name := fmt.Sprintf("preview-%d", number)
		w.shows(t, other, fmt.Sprintf("forge/deploy-preview-%d", number+1), "success")
		deployedAt(t, w, name, "success")
		must(t, w.sim.WaitDeliveries(t.Context()))
		kittest.Want(t, len(look()), 0, "while they are open")

		w.sim.LoseDeliveries(1)
		must(t, w.sim.ClosePullRequest(owner, repo, number))
		swept := look()
		if len(swept) != 1 || !strings.HasPrefix(swept[0], "swept-") {
			t.Fatalf("swept %v", swept)
		}
		w.shows(t, head, "forge/stop-"+name, "success")
		deployedAt(t, w, name, "inactive")
		environmentsOf(t, w, fmt.Sprintf("preview-%d", number+1))
		kittest.Want(t, len(look()), 0, "the same once more")

		shown, err := deliveries.GetDelivery(asAdmin(t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: swept[0]})
		must(t, err)
		late, err := http.DefaultClient.Do(webhook(t, w.http, "pull_request", "late", string(shown.GetDelivery().GetPayload())))
		must(t, err)
		must(t, late.Body.Close())
		kittest.Eventually(t, patience, func() error {
			shown, err := deliveries.GetDelivery(asAdmin(t.Context()), &gatewayv1.GetDeliveryRequest{DeliveryId: "late"})
			if err == nil && shown.GetDelivery().GetState() != gatewayv1.Delivery_STATE_DECIDED {
				err = fmt.Errorf("%v", shown.GetDelivery().GetForwards())
			}
			return err
		})
		must(t, w.sim.ReopenPullRequest(owner, repo, number))
		deployedAt(t, w, name, "inactive", "success")

		w.sim.LoseDeliveries(2) // of the push, too
		w.merge(t, number)
		kittest.Want(t, len(look()), 1, "the merge")
		deployedAt(t, w, name, "inactive", "inactive")
	})
}

// Neither a fork nor somebody who may push a branch gets by a preview what an
// environment has, its name or its secrets.
func TestAPreviewIsNoWayToAnEnvironment(t *testing.T) {
	const secret = "of-production-alone"
	eachDatabase(t, func(t *testing.T, d deployment) {
		w := newWorld(t, map[string]string{".forge.yml": previews("  canary-2: {branches: [live], run: 'true'}")})
		w.env = append(w.env, "FORGE_SECRETS_KEY="+strings.Repeat("ab", 32))
		w.deploy(t, d)
		for _, environment := range []string{"production", "canary-2", "preview-1", "preview-2"} {
			w.ask(t, http.MethodPut, w.http+"/v1/secrets/"+owner+"/"+repo+"/KEY", `{"value": "`+secret+`", "environment": "`+environment+`"}`)
		}
		sly := func(name string) string {
			file := strings.Replace(previews(), "preview-${pull_request}", name, 1)
			file = strings.Replace(file, "'echo up ", "'echo the key is [$KEY] up ", 1)
			return strings.Replace(file, "image: busybox", "image: busybox\nsecrets: [KEY]", 1)
		}

		must(t, w.sim.Fork(owner, repo, "mallory"))
		must(t, w.sim.CreateBranch("mallory", repo, "sly", "main"))
		forked, err := w.sim.Commit("mallory", repo, "sly", files(".forge.yml", sly("production-${pull_request}")))
		must(t, err)
		number, err := w.sim.OpenPullRequest(owner, repo, githubsim.PullRequest{Title: "sly", Head: "mallory:sly", Base: "main", Author: "mallory"})
		must(t, err)
		w.shows(t, forked, "forge/test", "pending")
		if all, err := w.sim.Deployments(owner, repo); len(all) > 0 || err != nil {
			t.Errorf("nobody approved it, and GitHub has %+v, %v", all, err)
		}
		w.comment(t, number, "octocat", "/forge approve "+forked)
		name := fmt.Sprintf("preview-%d", number)
		if log := w.log(t, w.shows(t, forked, "forge/deploy-"+name, "success").TargetURL); !strings.Contains(log, "the key is [] up "+name) {
			t.Errorf("the fork's preview printed %q", log)
		}
		unread, err := w.sim.Commit("mallory", repo, "sly", files(".forge.yml", strings.ReplaceAll(sly("production-${pull_request}"), "echo", "echo unread")))
		must(t, err)
		w.shows(t, unread, "forge/test", "pending")
		must(t, w.sim.ClosePullRequest(owner, repo, number))
		if log := w.log(t, w.shows(t, forked, "forge/stop-"+name, "success").TargetURL); strings.Contains(log, "unread") {
			t.Errorf("what nobody approved took it down: %q", log)
		}
		deployedAt(t, w, name, "inactive")

		number, head := w.propose(t, "branch", files(".forge.yml", sly("canary-${pull_request}")))
		name = fmt.Sprintf("preview-%d", number)
		if log := w.log(t, w.shows(t, head, "forge/deploy-"+name, "success").TargetURL); strings.Contains(log, secret) || !strings.Contains(log, "the key is [] up "+name) {
			t.Errorf("the preview printed %q", log)
		}
		environmentsOf(t, w, name)
		all, err := w.sim.Deployments(owner, repo)
		must(t, err)
		for _, d := range all {
			if !strings.HasPrefix(d.Environment, "preview-") {
				t.Errorf("GitHub has a deployment to %s", d.Environment)
			}
		}
	})
}
