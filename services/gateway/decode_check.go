package gateway

import (
	"strings"

	"github.com/google/go-github/v62/github"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
)

// decodeCheckRun reads https://docs.github.com/webhooks/webhook-events-and-payloads#check_run
func decodeCheckRun(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.CheckRunEvent](payload)
	if err != nil {
		return nil, err
	}
	run := p.GetCheckRun()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"check_run", run.GetID() != 0},
		need{"check_run.head_sha", run.GetHeadSHA() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	checkRun := &eventv1.CheckRunEvent{
		CheckRunId:   run.GetID(),
		Name:         run.GetName(),
		HeadSha:      run.GetHeadSHA(),
		ExternalId:   run.GetExternalID(),
		CheckSuiteId: run.GetCheckSuite().GetID(),
		AppId:        run.GetApp().GetID(),
		PullRequests: numbers(run.PullRequests),
	}
	if p.RequestedAction != nil {
		checkRun.RequestedAction = p.RequestedAction.Identifier
		checkRun.Button = eventv1.Button(eventv1.Button_value["BUTTON_"+strings.ToUpper(p.RequestedAction.Identifier)])
	}
	e.Payload = &eventv1.Event_CheckRun{CheckRun: checkRun}
	return e, nil
}

// decodeCheckSuite reads https://docs.github.com/webhooks/webhook-events-and-payloads#check_suite
func decodeCheckSuite(payload []byte) (*eventv1.Event, error) {
	p, err := parse[github.CheckSuiteEvent](payload)
	if err != nil {
		return nil, err
	}
	suite := p.GetCheckSuite()
	shared := common{p.Action, p.Repo, p.Sender, p.Installation}
	err = require(
		need{"action", p.GetAction() != ""},
		need{"check_suite", suite.GetID() != 0},
		need{"check_suite.head_sha", suite.GetHeadSHA() != ""},
		shared.inRepository(),
	)
	if err != nil {
		return nil, err
	}
	e := shared.event()
	e.Payload = &eventv1.Event_CheckSuite{CheckSuite: &eventv1.CheckSuiteEvent{
		CheckSuiteId: suite.GetID(),
		HeadSha:      suite.GetHeadSHA(),
		HeadBranch:   suite.GetHeadBranch(),
		AppId:        suite.GetApp().GetID(),
		PullRequests: numbers(suite.PullRequests),
		UpdateTime:   timestamp(suite.UpdatedAt),
	}}
	return e, nil
}
