package reporter

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-github/v62/github"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// checkRun is the request that makes a check run, or changes it. go-github's own
// leaves an empty list of buttons out, and GitHub then keeps the old ones.
type checkRun struct {
	Name        string                   `json:"name"`
	HeadSHA     string                   `json:"head_sha,omitempty"`
	ExternalID  string                   `json:"external_id"`
	DetailsURL  string                   `json:"details_url,omitempty"`
	Status      string                   `json:"status"`
	Conclusion  string                   `json:"conclusion,omitempty"`
	StartedAt   *time.Time               `json:"started_at,omitempty"`
	CompletedAt *time.Time               `json:"completed_at,omitempty"`
	Output      *github.CheckRunOutput   `json:"output"`
	Actions     []*github.CheckRunAction `json:"actions"`
}

const stateCompleted = "completed"

func checkColumn(v view) string { return v.check }

// newCheckRun is what GitHub is to show of a build.
func newCheckRun(r *reporterv1.ReportRequest, desired display) checkRun {
	b := r.GetBuild()
	c := checkRun{
		Name: checkName(r), ExternalID: b.GetId(), DetailsURL: desired.url, Status: desired.state,
		StartedAt: optionalTime(b.GetStartTime()), Actions: buttons(b), Output: output(r, desired.description),
	}
	if !desired.unfinished() {
		c.Status, c.Conclusion, c.CompletedAt = stateCompleted, desired.state, optionalTime(b.GetEndTime())
	}
	return c
}

// plainReport has nothing that people or commands have written.
func plainReport(r *reporterv1.ReportRequest) *reporterv1.ReportRequest {
	plain := proto.CloneOf(r)
	plain.Output, plain.Tests, plain.Build.Message, plain.Build.Steps, plain.Build.ConfigProblems = nil, nil, "", nil, nil
	return plain
}

// checkName is "Forge / deploy staging" for forge/deploy-staging, and "Forge / test /
// unit-tests" for the job of forge/test/unit-tests. One that the commit status does
// not show has a name of its own: "Forge / test (#8)".
func checkName(r *reporterv1.ReportRequest) string {
	action, job, ofJob := strings.Cut(strings.TrimPrefix(r.GetBuild().GetContext(), "forge/"), "/")
	name := "Forge / " + strings.ReplaceAll(action, "-", " ")
	if ofJob {
		name += " / " + job
	}
	if r.GetStanding() == outranked { // or a check that is required could be passed, or failed, by it
		name += " (" + origin(r.GetBuild()) + ")"
	}
	return name
}

// buttons are those that make sense at a build. Only administrators act on a
// deploy, besides letting it go.
// https://docs.github.com/rest/guides/using-the-rest-api-to-interact-with-checks
func buttons(b *schedulerv1.Build) []*github.CheckRunAction {
	rerun := button(eventv1.Button_BUTTON_RERUN, "Run again", "Build the same commit once more")
	if b.GetPartOf() != "" {
		rerun = button(eventv1.Button_BUTTON_RERUN, "Run again", "Run this job and what failed once more")
	}
	failed := button(eventv1.Button_BUTTON_RERUN_FAILED, "Run failed again", "Run those jobs that did not pass")
	cancel := button(eventv1.Button_BUTTON_CANCEL, "Cancel", "Stop this build")
	approve := button(eventv1.Button_BUTTON_APPROVE, "Approve", "Let this commit of a fork run")
	switch state := b.GetState(); {
	case b.GetReason() == schedulerv1.Build_REASON_DEPLOY_NEEDS_APPROVAL && state == schedulerv1.Build_STATE_BLOCKED:
		return []*github.CheckRunAction{button(eventv1.Button_BUTTON_APPROVE, "Deploy", "Let this commit be deployed")}
	case b.GetEnvironment() != "" && !preview(b):
		return []*github.CheckRunAction{}
	case state == schedulerv1.Build_STATE_BLOCKED:
		return []*github.CheckRunAction{approve, cancel}
	case views[state].status == statePending:
		return []*github.CheckRunAction{cancel}
	case b.GetJobCount() > 0 && state != schedulerv1.Build_STATE_PASSED:
		return []*github.CheckRunAction{failed, rerun}
	default:
		return []*github.CheckRunAction{rerun}
	}
}

func button(b eventv1.Button, label, description string) *github.CheckRunAction {
	name := strings.ToLower(strings.TrimPrefix(b.String(), "BUTTON_"))
	return &github.CheckRunAction{Label: label, Description: description, Identifier: name}
}

// publishCheck makes a build's check run, or changes the one there is.
func publishCheck(ctx context.Context, client *github.Client, t target) (receipt, error) {
	report, err := t.storedReport()
	if err != nil {
		return receipt{}, err
	}
	if t.plain {
		report = plainReport(report)
	}
	want, there := newCheckRun(report, t.desired), &github.CheckRun{ID: &t.githubID}
	path := fmt.Sprintf("repos/%s/%s/check-runs", t.repository.GetOwner(), t.repository.GetName())
	switch {
	case t.githubID == 0 && t.begun:
		there, err = findCheckRun(ctx, client, t)
	case t.githubID != 0 && t.published == (display{}) && len(want.Output.Annotations) > 0:
		// An earlier attempt may have come through, and each adds its annotations.
		there, _, err = client.Checks.GetCheckRun(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID)
	}
	if err != nil {
		return receipt{}, err
	}
	if displayOfRun(there) == t.desired {
		return receipt{githubID: there.GetID()}, nil
	}
	method := http.MethodPost
	if id := there.GetID(); id != 0 {
		method, path = http.MethodPatch, fmt.Sprintf("%s/%d", path, id)
	} else {
		want.HeadSHA = t.sha
	}
	req, err := client.NewRequest(method, path, want)
	if err != nil {
		return receipt{}, err
	}
	made := &github.CheckRun{}
	_, err = client.Do(ctx, req, made)
	return receipt{githubID: made.GetID()}, err
}

// displayOfRun is what a check run shows.
func displayOfRun(run *github.CheckRun) display {
	state := run.GetStatus()
	if state == stateCompleted {
		state = run.GetConclusion()
	}
	return display{state, run.GetOutput().GetTitle(), run.GetDetailsURL()}
}

// findCheckRun is the one that an earlier attempt made; without an id where it
// made none. It may have had another name.
func findCheckRun(ctx context.Context, client *github.Client, t target) (*github.CheckRun, error) {
	options := &github.ListCheckRunsOptions{Filter: new("all"), ListOptions: github.ListOptions{PerPage: largestList}}
	for {
		some, resp, err := client.Checks.ListCheckRunsForRef(ctx, t.repository.GetOwner(), t.repository.GetName(), t.sha, options)
		if err != nil {
			return nil, err
		}
		for _, run := range some.CheckRuns {
			if run.GetExternalID() == t.buildID {
				return run, nil
			}
		}
		if options.Page = resp.NextPage; options.Page == 0 {
			return &github.CheckRun{}, nil
		}
	}
}

// optionalTime is nil where there is no time.
func optionalTime(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.AsTime())
}

// unlinked keeps GitHub from making links of addresses and of its own short forms.
var unlinked = strings.NewReplacer("://", ":\u200b//", "www.", "www\u200b.", "GH-", "GH\u200b-", "gh-", "gh\u200b-", "Gh-", "Gh\u200b-", "gH-", "gH\u200b-")

// markdown is a text of somebody's as one line within GitHub's Markdown that
// means nothing there: no link, no mention, no markup, no cell of a table.
func markdown(text string, most int) string {
	var plain strings.Builder
	for i, r := range unlinked.Replace(cut(oneLine(text), most)) {
		switch {
		case r == '@' || r == '#':
			plain.WriteRune(r)
			plain.WriteRune('\u200b') // or it would call somebody, or point somewhere
		case i == 0 && r == '-', // a list
			r < unicode.MaxASCII && unicode.IsPunct(r) && !strings.ContainsRune(`.,:;/"'-%?!`, r), strings.ContainsRune("|<>`~^$+=", r):
			plain.WriteRune('\\')
			plain.WriteRune(r)
		default:
			plain.WriteRune(r)
		}
	}
	return plain.String()
}

// readCheck reads what a check run shows.
func readCheck(ctx context.Context, client *github.Client, t target) (display, *github.Response, error) {
	if t.githubID == 0 {
		return display{}, nil, nil
	}
	run, resp, err := client.Checks.GetCheckRun(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID)
	return displayOfRun(run), resp, err
}
