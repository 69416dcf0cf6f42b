package reporter

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/go-github/v62/github"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// GitHub's bounds.
// https://docs.github.com/rest/checks/runs#create-a-check-run
const (
	maxAnnotations = 50     // a call
	maxText        = 65_535 // characters of a summary or a text
)

const (
	shownLines  = 60
	listedSteps = 100
	maxStepName = 120
	maxMessage  = 1000 // characters of an annotation
	maxPath     = 255
	maxLine     = 1_000_000
)

// output is the page of a check run.
func output(r *reporterv1.ReportRequest, title string) *github.CheckRunOutput {
	o := &github.CheckRunOutput{Title: &title, Summary: new(summary(r))}
	if views[r.GetBuild().GetState()].status == statePending {
		return o
	}
	if lines := lastLines(r.GetOutput(), shownLines); len(lines) > 0 {
		o.Text = new(fenced("The last lines of what it printed:", lines))
	}
	o.Annotations = annotations(r)
	return o
}

// summary is a build's steps with their times, and where to read on.
func summary(r *reporterv1.ReportRequest) string {
	b := r.GetBuild()
	var text strings.Builder
	message := ""
	if b.GetMessage() != "" {
		message = markdown(b.GetMessage(), maxMessage) + "\n\n"
	}
	for i, job := range b.GetJobs() {
		if i == 0 {
			text.WriteString("| | job | took | |\n|---|---|---|---|\n")
		}
		mark, known := marksOfJobs[job.GetState()]
		if !known {
			mark = "◦"
		}
		fmt.Fprintf(&text, "| %s | [%s](%s) | %s | %s |\n", mark, markdown(job.GetTitle(), maxStepName), job.GetUrl(), took(job), markdown(job.GetMessage(), maxDescription))
	}
	for i, step := range b.GetSteps() {
		if i == 0 {
			text.WriteString("| | step | took |\n|---|---|---|\n")
		}
		if i == listedSteps {
			fmt.Fprintf(&text, "| | and %d more | |\n", len(b.GetSteps())-i)
			break
		}
		fmt.Fprintf(&text, "| %s | %d. %s | %s |\n", marksOf[step.GetState()], step.GetNumber(), markdown(step.GetName(), maxStepName), took(step))
	}
	more := "All output"
	if len(b.GetJobs()) > 0 {
		more = "All jobs and their output"
	}
	fmt.Fprintf(&text, "\n[%s](%s)", more, b.GetUrl())
	tests := testSummary(r.GetTests())
	if tests != "" {
		tests += "\n\n"
	}
	if utf8.RuneCountInString(message)+utf8.RuneCountInString(tests)+utf8.RuneCountInString(text.String()) > maxText {
		tests = ""
	}
	return strings.TrimSpace(message + tests + text.String())
}

// marksOf show at a glance how a step ended.
var marksOf = map[schedulerv1.Step_State]string{
	schedulerv1.Step_STATE_PENDING: "◦",
	schedulerv1.Step_STATE_RUNNING: "▶",
	schedulerv1.Step_STATE_PASSED:  "✓",
	schedulerv1.Step_STATE_FAILED:  "✗",
	schedulerv1.Step_STATE_SKIPPED: "–",
	schedulerv1.Step_STATE_STOPPED: "■",
}

// marksOfJobs show the same of a job; of others it has not begun.
var marksOfJobs = map[schedulerv1.Build_State]string{
	schedulerv1.Build_STATE_RUNNING:   "▶",
	schedulerv1.Build_STATE_PASSED:    "✓",
	schedulerv1.Build_STATE_FAILED:    "✗",
	schedulerv1.Build_STATE_ERRORED:   "✗",
	schedulerv1.Build_STATE_TIMED_OUT: "✗",
	schedulerv1.Build_STATE_CANCELLED: "–",
}

// lastLines are those of an output, as a terminal shows them.
func lastLines(printed []byte, most int) []string {
	text := terminal.Text(bytes.TrimRight(printed, "\r\n"))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(len(lines)-most, 0):]
	for i, line := range lines {
		lines[i] = strings.Map(func(r rune) rune {
			if turns(r) {
				return -1
			}
			return r
		}, line)
	}
	return lines
}

// longestFence is more than anybody writes who does not want to break one.
const longestFence = 100

// fenced are lines that GitHub shows as they are; of too many characters, the
// last. The fence is longer than any within, which are bounded.
func fenced(lead string, lines []string) string {
	body := strings.ReplaceAll(strings.Join(lines, "\n"), strings.Repeat("`", longestFence), "…")
	longest, run := 2, 0
	for _, r := range body {
		if run++; r != '`' {
			run = 0
		}
		longest = max(longest, run)
	}
	fence := strings.Repeat("`", longest+1)
	left := maxText - utf8.RuneCountInString(lead) - 2*len(fence) - len("\n\n\n\n")
	if runes := []rune(body); len(runes) > left {
		body = string(runes[len(runes)-left:])
	}
	return lead + "\n\n" + fence + "\n" + body + "\n" + fence
}

// annotations are tests that failed and findings, errors of .forge.yml, and what the
// output says of other lines of files.
func annotations(r *reporterv1.ReportRequest) []*github.CheckRunAnnotation {
	lines := lastLines(r.GetOutput(), maxReported)
	if r.GetBuild().GetReason() == schedulerv1.Build_REASON_CONFIG_INVALID {
		for _, p := range r.GetBuild().GetConfigProblems() {
			lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", cmp.Or(p.GetFile(), ".forge.yml"), p.GetLine(), p.GetColumn(), oneLine(p.GetMessage())))
		}
		lines = append(lines, r.GetBuild().GetMessage()) // the first of them
	}
	found := testAnnotations(r)
	seen, told := map[string]bool{}, map[string]bool{}
	for _, one := range found {
		told[fmt.Sprint(one.GetPath(), ":", one.GetStartLine())] = true
	}
	for _, line := range lines {
		one := annotation(line)
		if one == nil || seen[line] || told[fmt.Sprint(one.GetPath(), ":", one.GetStartLine())] {
			continue
		}
		seen[line] = true
		if len(found) >= maxAnnotations {
			break
		}
		found = append(found, one)
	}
	return found
}

// file:line:col: message, as compilers and linters write it.
var complaint = regexp.MustCompile(`^\s*([^\s:"'()<>|*?]+):(\d{1,7}):(\d{1,7}):\s*(\S.*)$`)

// annotatable reports whether a clean path may be one of the repository. One that leads
// out of it is none of GitHub's business.
func annotatable(file string) bool {
	return !path.IsAbs(file) && file != "." && file != ".." && !strings.HasPrefix(file, "../") && !strings.Contains(file, "\\") && len(file) <= maxPath
}

// annotation is what a line says of a file of the repository; nil if it says
// nothing.
func annotation(line string) *github.CheckRunAnnotation {
	m := complaint.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	file := path.Clean(m[1])
	at, err := strconv.Atoi(m[2])
	column, columnErr := strconv.Atoi(m[3])
	switch {
	case err != nil, columnErr != nil, at < 1, at > maxLine, column < 1:
		return nil
	case !annotatable(file):
		return nil
	case !strings.Contains(path.Base(file), "."): // a time, an address and its port
		return nil
	}
	return &github.CheckRunAnnotation{
		Path: &file, StartLine: &at, EndLine: &at, StartColumn: &column, EndColumn: &column,
		AnnotationLevel: new("failure"), Message: new(cut(oneLine(m[4]), maxMessage)),
	}
}
