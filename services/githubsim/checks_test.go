package githubsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v62/github"
)

func annotation(line int) *github.CheckRunAnnotation {
	return &github.CheckRunAnnotation{
		Path: new("main.go"), StartLine: &line, EndLine: &line, AnnotationLevel: new("failure"), Message: new("broken"),
	}
}

func output(annotations ...*github.CheckRunAnnotation) *github.CheckRunOutput {
	return &github.CheckRunOutput{Title: new("Failed"), Summary: new("Step 2 failed"), Annotations: annotations}
}

func TestCheckRunIsMadeUpdatedAndShown(t *testing.T) {
	w := newWorld(t)
	number := w.pull("feature")
	w.news()
	head, err := w.sim.Head("acme", "shop", "feature")
	w.must(err)
	shop, ctx := w.shop(), t.Context()
	run, _, err := shop.Checks.CreateCheckRun(ctx, "acme", "shop", github.CreateCheckRunOptions{
		Name: "Forge / test", HeadSHA: head, ExternalID: new("b1"), DetailsURL: new("https://forge.example/b1"),
		Actions: []*github.CheckRunAction{{Label: "Cancel", Description: "Stop it", Identifier: "cancel"}},
	})
	w.must(err)
	if run.GetStatus() != "queued" || run.Conclusion != nil || run.GetExternalID() != "b1" || run.GetApp().GetSlug() != "forge" {
		t.Errorf("got %v", run)
	}
	if len(run.PullRequests) != 1 || run.PullRequests[0].GetNumber() != number || run.GetCheckSuite().GetHeadBranch() != "feature" {
		t.Errorf("got pull requests %v of suite %v", run.PullRequests, run.GetCheckSuite())
	}
	var lines []*github.CheckRunAnnotation
	for line := range 50 {
		lines = append(lines, annotation(line+1))
	}
	update := func(options github.UpdateCheckRunOptions) *github.CheckRun {
		options.Name = "Forge / test"
		run, _, err := shop.Checks.UpdateCheckRun(ctx, "acme", "shop", run.GetID(), options)
		w.must(err)
		return run
	}
	update(github.UpdateCheckRunOptions{Status: new("in_progress"), Output: output(lines...)})
	ended := w.clock.Now().Add(time.Minute)
	run = update(github.UpdateCheckRunOptions{
		Status: new("completed"), Conclusion: new("failure"), Output: output(annotation(51)), CompletedAt: &github.Timestamp{Time: ended},
	})
	if run.GetConclusion() != "failure" || run.GetOutput().GetAnnotationsCount() != 51 || !run.GetCompletedAt().Time.Equal(ended) || run.GetCheckSuite().GetConclusion() != "failure" {
		t.Errorf("got %v", run)
	}
	wantNews(t, w.news(), "check_run created Forge / test", "check_run completed Forge / test", "check_suite completed failure")

	again, _, err := shop.Checks.GetCheckRun(ctx, "acme", "shop", run.GetID())
	if err != nil || again.GetOutput().GetSummary() != "Step 2 failed" {
		t.Errorf("got %v, error %v", again, err)
	}
	page, answer, err := shop.Checks.ListCheckRunAnnotations(ctx, "acme", "shop", run.GetID(), &github.ListOptions{PerPage: 50})
	if err != nil || len(page) != 50 || answer.NextPage != 2 {
		t.Errorf("got %d annotations, next page %d, error %v", len(page), answer.NextPage, err)
	}
	_, _, err = shop.Checks.CreateCheckRun(ctx, "acme", "shop", github.CreateCheckRunOptions{Name: "Forge / test", HeadSHA: head, Conclusion: new("success")})
	w.must(err)
	for filter, want := range map[string]int{"latest": 1, "all": 2} {
		list, _, err := shop.Checks.ListCheckRunsForRef(ctx, "acme", "shop", "feature", &github.ListCheckRunsOptions{Filter: &filter, CheckName: new("Forge / test")})
		if err != nil || list.GetTotal() != want {
			t.Errorf("%s: got %v, error %v", filter, list, err)
		}
	}
	suites, _, err := shop.Checks.ListCheckSuitesForRef(ctx, "acme", "shop", head, nil)
	if err != nil || suites.GetTotal() != 1 || suites.CheckSuites[0].GetConclusion() != "success" {
		t.Errorf("got %v, error %v", suites, err)
	}
	suite, _, err := shop.Checks.GetCheckSuite(ctx, "acme", "shop", suites.CheckSuites[0].GetID())
	if err != nil || suite.GetHeadSHA() != head {
		t.Errorf("got %v, error %v", suite, err)
	}
	inSuite, _, err := shop.Checks.ListCheckRunsCheckSuite(ctx, "acme", "shop", suite.GetID(), &github.ListCheckRunsOptions{Status: new("queued")})
	if err != nil || inSuite.GetTotal() != 0 {
		t.Errorf("got %v, error %v", inSuite, err)
	}
	runs, err := w.sim.CheckRuns("acme", "shop", head)
	if err != nil || len(runs) != 2 || runs[0].Conclusion != "failure" || len(runs[0].Annotations) != 51 || runs[0].Actions[0].Identifier != "cancel" {
		t.Errorf("got %v, error %v", runs, err)
	}
}

func TestButtonsOfChecksAreTold(t *testing.T) {
	w := newWorld(t)
	shop, ctx, head := w.shop(), t.Context(), w.head()
	run, _, err := shop.Checks.CreateCheckRun(ctx, "acme", "shop", github.CreateCheckRunOptions{
		Name: "Forge / test", HeadSHA: head, Conclusion: new("failure"), Actions: []*github.CheckRunAction{{Label: "Approve", Description: "Run it", Identifier: "approve"}},
	})
	w.must(err)
	w.news()
	w.must(w.sim.RerequestCheckRun("acme", "shop", run.GetID(), "mona"))
	w.must(w.sim.RequestAction("acme", "shop", run.GetID(), "approve", ""))
	w.must(w.sim.RerequestCheckSuite("acme", "shop", head, ""))
	_, err = shop.Checks.ReRequestCheckRun(ctx, "acme", "shop", run.GetID())
	w.must(err)
	_, err = shop.Checks.ReRequestCheckSuite(ctx, "acme", "shop", run.GetCheckSuite().GetID())
	w.must(err)
	w.settle()
	events := w.hooks.take(t)
	if len(events) != 5 {
		t.Fatalf("was told %d things", len(events))
	}
	again := events[0].(*github.CheckRunEvent)
	if again.GetAction() != "rerequested" || again.GetSender().GetLogin() != "mona" || again.GetCheckRun().GetCheckSuite().GetStatus() != "queued" || again.GetCheckRun().GetConclusion() != "failure" {
		t.Errorf("got %v", again)
	}
	pressed := events[1].(*github.CheckRunEvent)
	if pressed.GetAction() != "requested_action" || pressed.GetRequestedAction().Identifier != "approve" || pressed.GetSender().GetLogin() != "octocat" {
		t.Errorf("got %v", pressed)
	}
	all := events[2].(*github.CheckSuiteEvent)
	if all.GetAction() != "rerequested" || all.GetCheckSuite().GetHeadSHA() != head || all.GetCheckSuite().GetHeadCommit().GetMessage() != "Initial commit" {
		t.Errorf("got %v", all)
	}
	for want, err := range map[string]error{
		fmt.Sprintf(`check run %d of acme/shop has no button "cancel"`, run.GetID()): w.sim.RequestAction("acme", "shop", run.GetID(), "cancel", ""),
		"check run 999999 of acme/shop does not exist":                               w.sim.RerequestCheckRun("acme", "shop", 999_999, ""),
		"acme/shop has no check suite at abc":                                        w.sim.RerequestCheckSuite("acme", "shop", "abc", ""),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestCheckRunsAreRefused(t *testing.T) {
	w := newWorld(t)
	shop, ctx, head := w.shop(), t.Context(), w.head()
	var tooMany []*github.CheckRunAnnotation
	for line := range 51 {
		tooMany = append(tooMany, annotation(line+1))
	}
	nowhere, odd, wide := annotation(0), annotation(1), annotation(1)
	odd.AnnotationLevel = new("fatal")
	wide.EndLine, wide.StartColumn = new(2), new(1)
	action := &github.CheckRunAction{Label: "Approve", Description: "Run it", Identifier: "approve"}
	for name, test := range map[string]struct {
		change func(*github.CreateCheckRunOptions)
		says   string
	}{
		"no name":            {func(o *github.CreateCheckRunOptions) { o.Name = "" }, `"name" wasn't supplied.`},
		"unknown commit":     {func(o *github.CreateCheckRunOptions) { o.HeadSHA = strings.Repeat("a", 40) }, "No commit found for SHA"},
		"odd status":         {func(o *github.CreateCheckRunOptions) { o.Status = new("done") }, "done is not a member of"},
		"odd conclusion":     {func(o *github.CreateCheckRunOptions) { o.Conclusion = new("passed") }, "passed is not a member of"},
		"no conclusion":      {func(o *github.CreateCheckRunOptions) { o.Status = new("completed") }, `"conclusion" wasn't supplied.`},
		"too many lines":     {func(o *github.CreateCheckRunOptions) { o.Output = output(tooMany...) }, "No more than 50 items are allowed; 51 were supplied."},
		"line 0":             {func(o *github.CreateCheckRunOptions) { o.Output = output(nowhere) }, "An annotation has a path"},
		"odd level":          {func(o *github.CreateCheckRunOptions) { o.Output = output(odd) }, "fatal is not a member of"},
		"columns over lines": {func(o *github.CreateCheckRunOptions) { o.Output = output(wide) }, "columns only within one line"},
		"no summary":         {func(o *github.CreateCheckRunOptions) { o.Output = &github.CheckRunOutput{Title: new("x")} }, `"title" and "summary" weren't supplied.`},
		"long summary": {func(o *github.CreateCheckRunOptions) {
			o.Output = output()
			o.Output.Summary = new(strings.Repeat("x", 65_536))
		}, "Only 65535 characters are allowed."},
		"four buttons": {func(o *github.CreateCheckRunOptions) {
			o.Actions = []*github.CheckRunAction{action, action, action, action}
		}, "No more than 3 items are allowed; 4 were supplied."},
		"a long label": {func(o *github.CreateCheckRunOptions) {
			o.Actions = []*github.CheckRunAction{{Label: strings.Repeat("x", 21), Description: "x", Identifier: "x"}}
		}, "1 to 20 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			options := github.CreateCheckRunOptions{Name: "Forge / test", HeadSHA: head}
			test.change(&options)
			_, _, err := shop.Checks.CreateCheckRun(ctx, "acme", "shop", options)
			wantError(t, err, http.StatusUnprocessableEntity, test.says)
		})
	}
	if runs, err := w.sim.CheckRuns("acme", "shop", head); err != nil || len(runs) != 0 {
		t.Errorf("refused, and yet there are %v, error %v", runs, err)
	}
	_, _, err := shop.Checks.GetCheckRun(ctx, "acme", "shop", 999_999)
	wantError(t, err, http.StatusNotFound, "Not Found")
	_, _, err = shop.Checks.UpdateCheckRun(ctx, "acme", "shop", 999_999, github.UpdateCheckRunOptions{Name: "x"})
	wantError(t, err, http.StatusNotFound, "Not Found")
}

func TestCheckRunsOfTheQueueCount(t *testing.T) {
	w := newWorld(t)
	w.must(w.sim.RequireStatus("acme", "shop", "Forge / test"))
	w.must(w.sim.Enqueue("acme", "shop", w.pull("feature")))
	groups, err := w.sim.MergeQueue("acme", "shop")
	w.must(err)
	_, _, err = w.shop().Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{
		Name: "Forge / test", HeadSHA: groups[0].HeadSHA, Conclusion: new("neutral"),
	})
	w.must(err)
	if w.head() != groups[0].HeadSHA {
		t.Errorf("main is at %s, want %s", w.head(), groups[0].HeadSHA)
	}
}
