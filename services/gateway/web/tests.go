package web

import (
	"context"
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// What the page of a build shows of its tests; the API has the rest.
const shownTests, shownFindings = 50, 20

// reported is what a build's tests and linters have said.
type reported struct {
	Summary  *schedulerv1.TestSummary // nil: nothing
	Failed   []*schedulerv1.Test
	Findings []*schedulerv1.Finding
	links    links
}

// reported asks what a build has reported. A page without it is better than none.
func (p *Pages) reported(ctx context.Context, b *schedulerv1.Build) (shown reported) {
	shown.links = p.links
	if b.GetAttempt() == 0 && b.GetJobCount() == 0 {
		return shown
	}
	told, err := p.tests.ListTests(ctx, &schedulerv1.ListTestsRequest{
		BuildId: b.GetId(), PageSize: shownTests, States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED},
	})
	if err == nil {
		shown.Failed, shown.Summary = told.GetTests(), told.GetSummary()
		if sum := told.GetSummary(); sum.GetPassed()+sum.GetSkipped()+sum.GetFailed()+sum.GetErrored()+sum.GetFindings() == 0 {
			shown.Summary = nil
		}
		if told.GetSummary().GetFindings() > 0 {
			var found *schedulerv1.ListFindingsResponse
			found, err = p.tests.ListFindings(ctx, &schedulerv1.ListFindingsRequest{BuildId: b.GetId(), PageSize: shownFindings})
			shown.Findings = found.GetFindings()
		}
	}
	if err != nil && !fault.Is(err, fault.NotFound) && ctx.Err() == nil {
		p.deps.Log.WarnContext(ctx, "ListTests failed; the page of the build shows no tests", "build", b.GetId(), "error", err)
	}
	return shown
}

// Row is a failed test as the page shows it.
func (r reported) Row(b *schedulerv1.Build, t *schedulerv1.Test) testRow {
	return newTestRow(r.links, b, t, r.Summary)
}

// Found is a finding as the page shows it.
func (r reported) Found(b *schedulerv1.Build, f *schedulerv1.Finding) findingRow {
	return findingRow{f, r.links.file(b, f.GetFile(), f.GetLine())}
}

// More is how many failed tests are not shown.
func (r reported) More() int64 {
	return r.Summary.GetFailed() + r.Summary.GetErrored() - int64(len(r.Failed))
}

// MoreFindings is how many findings are not shown.
func (r reported) MoreFindings() int64 { return r.Summary.GetFindings() - int64(len(r.Findings)) }

// Also says how many failures the base branch has, too; empty where none, or that is not
// known.
func (r reported) Also() string {
	if r.Summary.GetFailsOnBase() == 0 {
		return ""
	}
	return fmt.Sprintf("%d of them also on %s", r.Summary.GetFailsOnBase(), r.Summary.GetBaseRef())
}
