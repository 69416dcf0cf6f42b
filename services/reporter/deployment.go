package reporter

import (
	"bytes"
	"context"
	"net/http"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

func deploymentColumn(v view) string { return v.deployment }

// production is the environment whose earlier deployments GitHub leaves active
// when another one succeeds.
const production = "production"

// replaces reports whether the target has just become what an environment runs,
// and GitHub does not see by itself that the one before is gone.
func (t *target) replaces() bool {
	if t.kind != reporterv1.Target_KIND_DEPLOYMENT || t.state != reporterv1.Target_STATE_TOLD || t.desired.state != "success" {
		return false
	}
	report, err := t.storedReport()
	return environment(t.context) == production || err == nil && preview(report.GetBuild())
}

// preview reports whether a build is of a preview, which is gone one day. GitHub leaves
// active what was deployed there, whatever comes after it.
func preview(b *schedulerv1.Build) bool {
	return b.GetAction() == schedulerv1.Build_ACTION_PREVIEW || b.GetAction() == schedulerv1.Build_ACTION_STOP
}

// publishDeployment has the deployment of a build there, and sets its status.
func publishDeployment(ctx context.Context, client *github.Client, t target) (receipt, error) {
	report, err := t.storedReport()
	if err != nil {
		return receipt{}, err
	}
	b := report.GetBuild()
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	id := t.githubID
	if id == 0 && t.begun {
		if id, err = findDeployment(ctx, client, t); err != nil {
			return receipt{}, err
		}
	}
	if id == 0 && t.desired.state == stateInactive {
		return receipt{}, nil
	}
	to := environment(t.context)
	if id == 0 {
		made, _, err := client.Repositories.CreateDeployment(ctx, owner, name, &github.DeploymentRequest{
			Ref: &t.sha, Environment: &to, ProductionEnvironment: new(to == production), TransientEnvironment: new(preview(b)),
			Description: new(t.title(b)),
			// GitHub would merge the default branch into the one that is deployed, and
			// wait for statuses of which the deploy's own is one.
			AutoMerge: new(false), RequiredContexts: &[]string{},
			Payload: map[string]string{"forge_build": t.buildID},
		})
		if err != nil {
			return receipt{}, err
		}
		id = made.GetID()
	}
	request := &github.DeploymentStatusRequest{State: &t.desired.state, Description: &t.desired.description, LogURL: &t.desired.url}
	if address := b.GetEnvironmentUrl(); address != "" && !t.plain {
		request.EnvironmentURL = &address
	}
	_, _, err = client.Repositories.CreateDeploymentStatus(ctx, owner, name, id, request)
	return receipt{githubID: id}, err
}

// title says what is deployed.
func (t *target) title(b *schedulerv1.Build) string {
	if t.plain {
		return ""
	}
	return channelOf(t.kind).line(b.GetTitle())
}

// findDeployment is the one that an earlier attempt made; 0 where it made none.
func findDeployment(ctx context.Context, client *github.Client, t target) (int64, error) {
	found, _, err := client.Repositories.ListDeployments(ctx, t.repository.GetOwner(), t.repository.GetName(), &github.DeploymentsListOptions{
		SHA: t.sha, Environment: environment(t.context), ListOptions: github.ListOptions{PerPage: largestList},
	})
	for _, d := range found {
		if bytes.Contains(d.Payload, []byte(`"`+t.buildID+`"`)) {
			return d.GetID(), err
		}
	}
	return 0, err
}

// readDeployment reads the newest status of a deployment.
func readDeployment(ctx context.Context, client *github.Client, t target) (display, *github.Response, error) {
	switch {
	case t.githubID == 0 && t.desired.state == stateInactive: // it was never made, and need not be
		return t.desired, nil, nil
	case t.githubID == 0:
		return display{}, nil, nil
	}
	newest, resp, err := client.Repositories.ListDeploymentStatuses(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID,
		&github.ListOptions{PerPage: 1})
	if resp != nil && resp.StatusCode == http.StatusNotFound { // a person has deleted it, and is not to see it again
		return t.desired, resp, nil
	}
	if err != nil || len(newest) == 0 {
		return display{}, resp, err
	}
	return display{newest[0].GetState(), newest[0].GetDescription(), newest[0].GetLogURL()}, resp, nil
}
