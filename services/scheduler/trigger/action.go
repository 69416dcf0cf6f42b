package trigger

import (
	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Action is what a build is for.
type Action struct {
	// Name is FORGE_ACTION, and the commit status after "forge/".
	Name string
	// Pipeline is the part of .forge.yml it runs; nil or empty where there is none.
	Pipeline func(*configv1.BuildConfig) *configv1.Pipeline
	// Deploys: it is to an environment, which is Environment where the action says
	// that already.
	Deploys     bool
	Environment string
	// Promotes: once it has passed, or where .forge.yml has no job for it, the
	// branch it was merged into is promoted to production.
	Promotes bool
}

// ActionOf looks up what an action is; the zero value where there is none.
func ActionOf(action schedulerv1.Build_Action) Action {
	return map[schedulerv1.Build_Action]Action{
		schedulerv1.Build_ACTION_TEST:              {Name: "test", Pipeline: (*configv1.BuildConfig).GetExecute},
		schedulerv1.Build_ACTION_STAGING:           {Name: "staging", Pipeline: stagingOrExecute},
		schedulerv1.Build_ACTION_DEPLOY_STAGING:    {Name: "deploy-staging", Pipeline: (*configv1.BuildConfig).GetDeployStaging, Deploys: true, Environment: toStaging, Promotes: true},
		schedulerv1.Build_ACTION_DEPLOY_PRODUCTION: {Name: "deploy-production", Pipeline: (*configv1.BuildConfig).GetDeployProduction, Deploys: true, Environment: toProduction},
		schedulerv1.Build_ACTION_DEPLOY:            {Name: "deploy", Pipeline: deployed, Deploys: true},
		schedulerv1.Build_ACTION_PUSH:              {Name: "push", Pipeline: pushExecute},
		schedulerv1.Build_ACTION_RELEASE:           {Name: "release", Pipeline: releaseExecute},
		schedulerv1.Build_ACTION_SCHEDULE:          {Name: "schedule", Pipeline: scheduled},
		schedulerv1.Build_ACTION_MANUAL:            {Name: "manual", Pipeline: manualPart},
		schedulerv1.Build_ACTION_CLOSED:            {Name: "closed", Pipeline: closedPart},
		schedulerv1.Build_ACTION_PREVIEW:           {Name: "deploy-preview", Pipeline: deployed},
		schedulerv1.Build_ACTION_STOP:              {Name: "stop-preview", Pipeline: stopped},
	}[action]
}

func pushExecute(c *configv1.BuildConfig) *configv1.Pipeline { return c.GetPush().GetExecute() }

func releaseExecute(c *configv1.BuildConfig) *configv1.Pipeline { return c.GetRelease().GetExecute() }

// scheduled is what a schedule runs, in a file that holds it alone.
func scheduled(c *configv1.BuildConfig) *configv1.Pipeline {
	if len(c.GetSchedules()) != 1 {
		return nil
	}
	return c.GetSchedules()[0].GetExecute()
}

func manualPart(c *configv1.BuildConfig) *configv1.Pipeline { return c.GetManual().GetExecute() }

func closedPart(c *configv1.BuildConfig) *configv1.Pipeline { return c.GetPullRequest().GetClosed() }

func stagingOrExecute(c *configv1.BuildConfig) *configv1.Pipeline {
	if Runs(c.GetStaging()) {
		return c.GetStaging()
	}
	return c.GetExecute()
}

// Runs reports whether there is anything in a pipeline.
func Runs(p *configv1.Pipeline) bool { return len(p.GetCommands())+len(p.GetJobs()) > 0 }
