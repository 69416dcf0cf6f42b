package reporter

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/proto"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
)

// production is the environment whose earlier deployments GitHub leaves active
// when another one succeeds.
const production = "production"

// replaces reports whether the target has just become what an environment runs,
// and GitHub does not see by itself that the one before is gone.
func (t *target) replaces() bool {
	return t.kind == reporterv1.Target_KIND_DEPLOYMENT && t.state == reporterv1.Target_STATE_TOLD &&
		t.want.state == "success" && environment(t.context) == production
}

// tellDeployment has the deployment of a build there, and sets its status.
func tellDeployment(ctx context.Context, client *github.Client, t target) (answer, error) {
	report, err := t.reported()
	if err != nil {
		return answer{}, err
	}
	b := report.GetBuild()
	owner, name := t.repository.GetOwner(), t.repository.GetName()
	id := t.githubID
	if id == 0 && t.begun {
		if id, err = findDeployment(ctx, client, t); err != nil {
			return answer{}, err
		}
	}
	if id == 0 && t.want.state == inactive {
		return answer{}, nil
	}
	to := environment(t.context)
	if id == 0 {
		made, _, err := client.Repositories.CreateDeployment(ctx, owner, name, &github.DeploymentRequest{
			Ref: &t.sha, Environment: &to, ProductionEnvironment: new(to == production),
			Description: new(cut(oneLine(b.GetTitle()), maxDescription)),
			// GitHub would merge the default branch into the one that is deployed, and
			// wait for statuses of which the deploy's own is one.
			AutoMerge: new(false), RequiredContexts: &[]string{},
			Payload: map[string]string{"forge_build": t.buildID},
		})
		if err != nil {
			return answer{}, err
		}
		id = made.GetID()
	}
	request := &github.DeploymentStatusRequest{State: &t.want.state, Description: &t.want.description, LogURL: &t.want.url}
	if address := b.GetEnvironmentUrl(); address != "" {
		request.EnvironmentURL = &address
	}
	_, _, err = client.Repositories.CreateDeploymentStatus(ctx, owner, name, id, request)
	return answer{githubID: id}, err
}

// findDeployment is the one that an earlier try made, 0 if it did not come to
// that.
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

// reported is what the target was made of.
func (t *target) reported() (*reporterv1.ReportRequest, error) {
	r := &reporterv1.ReportRequest{}
	if err := proto.Unmarshal(t.payload, r); err != nil {
		return nil, fmt.Errorf("payload of target %s: %w", t.id, err)
	}
	return r, nil
}
