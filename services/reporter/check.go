package reporter

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-github/v62/github"
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

const completed = "completed"

// newCheckRun is what GitHub is to show of a build.
func newCheckRun(r *reporterv1.ReportRequest, want shown) checkRun {
	b := r.GetBuild()
	c := checkRun{
		Name: checkName(b.GetContext()), ExternalID: b.GetId(), DetailsURL: want.url, Status: want.state,
		StartedAt: moment(b.GetStartTime()), Actions: buttons(b), Output: output(r, want.description),
	}
	if !want.unfinished() {
		c.Status, c.Conclusion, c.CompletedAt = completed, want.state, moment(b.GetEndTime())
	}
	return c
}

// checkName is "Forge / deploy staging" for forge/deploy-staging.
func checkName(name string) string {
	return "Forge / " + strings.ReplaceAll(strings.TrimPrefix(name, "forge/"), "-", " ")
}

// buttons are those that make sense at a build, by what its scheduler takes from
// them. Deploys are steered by administrators alone.
// https://docs.github.com/rest/guides/using-the-rest-api-to-interact-with-checks
func buttons(b *schedulerv1.Build) []*github.CheckRunAction {
	rerun := button(eventv1.Button_BUTTON_RERUN, "Run again", "Build the same commit once more")
	cancel := button(eventv1.Button_BUTTON_CANCEL, "Cancel", "Stop this build")
	approve := button(eventv1.Button_BUTTON_APPROVE, "Approve", "Let this commit of a fork run")
	switch state := b.GetState(); {
	case b.GetEnvironment() != "":
		return []*github.CheckRunAction{}
	case state == schedulerv1.Build_STATE_BLOCKED:
		return []*github.CheckRunAction{approve, cancel}
	case looks[state].status == pending:
		return []*github.CheckRunAction{cancel}
	default:
		return []*github.CheckRunAction{rerun}
	}
}

func button(b eventv1.Button, label, description string) *github.CheckRunAction {
	name := strings.ToLower(strings.TrimPrefix(b.String(), "BUTTON_"))
	return &github.CheckRunAction{Label: label, Description: description, Identifier: name}
}

// tellCheck makes a build's check run, or changes the one there is.
func tellCheck(ctx context.Context, client *github.Client, t target) (answer, error) {
	report, err := t.reported()
	if err != nil {
		return answer{}, err
	}
	want, there := newCheckRun(report, t.want), &github.CheckRun{ID: &t.githubID}
	path := fmt.Sprintf("repos/%s/%s/check-runs", t.repository.GetOwner(), t.repository.GetName())
	switch {
	case t.githubID == 0 && t.begun:
		there, err = findCheckRun(ctx, client, t, want.Name)
	case t.githubID != 0 && t.told == (shown{}) && len(want.Output.Annotations) > 0:
		// A try before may have come through, and each adds its annotations.
		there, _, err = client.Checks.GetCheckRun(ctx, t.repository.GetOwner(), t.repository.GetName(), t.githubID)
	}
	if err != nil {
		return answer{}, err
	}
	if shownBy(there) == t.want {
		return answer{githubID: there.GetID()}, nil
	}
	method := http.MethodPost
	if id := there.GetID(); id != 0 {
		method, path = http.MethodPatch, fmt.Sprintf("%s/%d", path, id)
	} else {
		want.HeadSHA = t.sha
	}
	req, err := client.NewRequest(method, path, want)
	if err != nil {
		return answer{}, err
	}
	made := &github.CheckRun{}
	_, err = client.Do(ctx, req, made)
	return answer{githubID: made.GetID()}, err
}

// shownBy is what a check run shows.
func shownBy(run *github.CheckRun) shown {
	state := run.GetStatus()
	if state == completed {
		state = run.GetConclusion()
	}
	return shown{state, run.GetOutput().GetTitle(), run.GetDetailsURL()}
}

// findCheckRun is the one that an earlier try made; without an id if it did not
// come to that.
func findCheckRun(ctx context.Context, client *github.Client, t target, name string) (*github.CheckRun, error) {
	options := &github.ListCheckRunsOptions{CheckName: &name, Filter: new("all"), ListOptions: github.ListOptions{PerPage: largestList}}
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

func moment(t *timestamppb.Timestamp) *time.Time {
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
