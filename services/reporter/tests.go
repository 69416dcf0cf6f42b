package reporter

import (
	"cmp"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

const (
	listedTests  = 30
	maxTestName  = 120
	maxTestTitle = 255 // characters of an annotation's title
)

// withTests adds to the text of a build that has ended what its tests came to, where
// there is room for it.
func withTests(text string, r *reporterv1.ReportRequest) string {
	sum := r.GetTests().GetSummary()
	if sum == nil || views[r.GetBuild().GetState()].status == statePending {
		return text
	}
	text = oneLine(text)
	separator := ": "
	if strings.Contains(text, separator) {
		separator = "; "
	}
	room := maxDescription - utf8.RuneCountInString(text) - len(separator)
	for _, more := range testTexts(sum) {
		if utf8.RuneCountInString(more) <= room {
			return text + separator + more
		}
	}
	return text
}

// testTexts are what tests came to, the longer ones first.
func testTexts(sum *schedulerv1.TestSummary) []string {
	failed := int(sum.GetFailed() + sum.GetErrored())
	if failed == 0 {
		if flaky := int(sum.GetFlaky()); flaky > 0 {
			return []string{wording.Count(flaky, "flaky test")}
		}
		return nil
	}
	short := wording.Count(failed, "test") + " failed"
	if sum.FailsOnBase == nil {
		return []string{short}
	}
	also := int(sum.GetFailsOnBase())
	base := cmp.Or(oneLine(sum.GetBaseRef()), "the base branch")
	switch {
	case also == 0:
		return []string{short + ", none of them on " + base, short}
	case failed == 1:
		return []string{short + ", also on " + base, short}
	case also == failed:
		return []string{short + ", all of them also on " + base, short}
	default:
		return []string{fmt.Sprintf("%s, %d of them also on %s", short, also, base), short}
	}
}

// testSummary is what tests came to, with a table of those that failed. Nothing that
// they say means anything to Markdown.
func testSummary(told *reporterv1.ReportRequest_Tests) string {
	sum := told.GetSummary()
	if sum == nil {
		return ""
	}
	var counts []string
	for _, one := range []struct {
		count int64
		what  string
	}{
		{sum.GetPassed(), "passed"}, {sum.GetFailed(), "failed"}, {sum.GetErrored(), "errored"}, {sum.GetSkipped(), "skipped"},
	} {
		if one.count > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", one.count, one.what))
		}
	}
	if len(counts) > 0 {
		counts[0] = "Tests: " + counts[0]
	}
	if flaky := int(sum.GetFlaky()); flaky > 0 {
		counts = append(counts, fmt.Sprintf("%d flaky", flaky))
	}
	if found := int(sum.GetFindings()); found > 0 {
		counts = append(counts, wording.Count(found, "finding"))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\n", strings.Join(counts, ", "))
	for i, t := range told.GetFailed() {
		if i == 0 {
			text.WriteString("| | test | where | what it says |\n|---|---|---|---|\n")
		}
		if left := sum.GetFailed() + sum.GetErrored() - int64(i); i == listedTests && left > 0 {
			fmt.Fprintf(&text, "| | and %d more | | |\n", left)
			break
		}
		where := ""
		if t.GetFile() != "" {
			where = t.GetFile()
			if t.GetLine() > 0 {
				where = fmt.Sprintf("%s:%d", where, t.GetLine())
			}
		}
		first, _, _ := strings.Cut(t.GetMessage(), "\n")
		if t.GetFailsOnBase() {
			first = join("; ", "also on "+cmp.Or(sum.GetBaseRef(), "the base branch"), first)
		}
		fmt.Fprintf(&text, "| ✗ | %s | %s | %s |\n", markdown(testName(t), maxTestName), markdown(where, maxTestName), markdown(first, maxTestName))
	}
	return strings.TrimSpace(text.String())
}

// testName is what people call a test: with its class, where its name is not all.
func testName(t *schedulerv1.Test) string {
	group := cmp.Or(t.GetClass(), t.GetSuite())
	if group == "" || strings.Contains(t.GetName(), group) {
		return t.GetName()
	}
	return group + " " + t.GetName()
}

// testAnnotations are failed tests and findings at their places. Those of a build with
// jobs are at its jobs' check runs.
func testAnnotations(r *reporterv1.ReportRequest) []*github.CheckRunAnnotation {
	if r.GetBuild().GetJobCount() > 0 {
		return nil
	}
	var all []*github.CheckRunAnnotation
	add := func(file string, line, end int32, level, title, message string) {
		file = path.Clean(file)
		if !annotatable(file) || len(all) >= maxAnnotations {
			return
		}
		begin := int(min(max(line, 1), maxLine))
		last := max(begin, int(min(end, maxLine)))
		title = cut(oneLine(title), maxTestTitle)
		one := &github.CheckRunAnnotation{
			Path: &file, StartLine: &begin, EndLine: &last, AnnotationLevel: &level,
			Message: new(cmp.Or(cut(strings.TrimSpace(printable(message)), maxMessage), title, "no more is said")),
		}
		if title != "" {
			one.Title = &title
		}
		all = append(all, one)
	}
	for _, t := range r.GetTests().GetFailed() {
		if t.GetState() >= schedulerv1.Test_STATE_FAILED {
			add(t.GetFile(), t.GetLine(), 0, "failure", testName(t), t.GetMessage())
		}
	}
	levels := map[schedulerv1.Finding_Level]string{
		schedulerv1.Finding_LEVEL_ERROR: "failure", schedulerv1.Finding_LEVEL_WARNING: "warning", schedulerv1.Finding_LEVEL_NOTE: "notice",
	}
	for _, f := range r.GetTests().GetFindings() {
		add(f.GetFile(), f.GetLine(), f.GetEndLine(), cmp.Or(levels[f.GetLevel()], "warning"), join(": ", f.GetTool(), f.GetRule()), f.GetMessage())
	}
	return all
}
