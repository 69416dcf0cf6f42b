package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	"github.com/forge-ci/forge/services/kit/terminal"
	"github.com/forge-ci/forge/services/wording"
)

// drawGraph writes what each part of a file runs: its jobs by level, of which none
// begins before those it needs of the levels above have ended.
func drawGraph(out io.Writer, c *configv1.BuildConfig) error {
	var text strings.Builder
	type part struct {
		name string
		*configv1.Pipeline
	}
	parts := []part{
		{"pull request", c.GetExecute()},
		{"pull request into production", c.GetStaging()},
		{"deploy to staging", c.GetDeployStaging()},
		{"deploy to production", c.GetDeployProduction()},
		{"push of " + strings.Join(slices.Concat(c.GetPush().GetBranches(), c.GetPush().GetTags()), ", "), c.GetPush().GetExecute()},
		{"release", c.GetRelease().GetExecute()},
		{"closed pull request", c.GetPullRequest().GetClosed()},
		{"by hand", c.GetManual().GetExecute()},
	}
	for _, e := range c.GetEnvironments() {
		parts = append(parts, part{"deploy to " + e.GetName(), e.GetExecute()})
	}
	for _, schedule := range c.GetSchedules() {
		parts = append(parts, part{"schedule " + schedule.GetName(), schedule.GetExecute()})
	}
	for _, part := range parts {
		switch {
		case len(part.GetJobs()) > 0:
			fmt.Fprintf(&text, "%s: %s", part.name, wording.Count(len(part.GetJobs()), "job"))
			if part.GetFailFast() {
				text.WriteString(", the first that fails ends the others")
			}
			text.WriteString("\n")
			drawJobs(&text, part.GetJobs())
		case len(part.GetCommands()) > 0:
			fmt.Fprintf(&text, "%s: %s\n", part.name, wording.Count(len(part.GetCommands()), "command"))
		}
	}
	_, err := io.WriteString(out, terminal.Text([]byte(text.String())))
	return err
}

// drawJobs writes a table with a line for each name, its cells folded.
func drawJobs(text *strings.Builder, jobs []*configv1.Job) {
	cells := map[string][]*configv1.Job{}
	var names []string
	for _, job := range jobs {
		if cells[job.GetName()] == nil {
			names = append(names, job.GetName())
		}
		cells[job.GetName()] = append(cells[job.GetName()], job)
	}
	level := levels(names, cells)
	slices.SortStableFunc(names, func(a, b string) int { return level[a] - level[b] })
	var rows strings.Builder
	for i, name := range names {
		number := ""
		if i == 0 || level[name] != level[names[i-1]] {
			number = strconv.Itoa(level[name])
		}
		shown := name
		if len(cells[name][0].GetMatrix()) > 0 {
			shown += fmt.Sprintf(" ×%d", len(cells[name]))
		}
		fmt.Fprintf(&rows, "  %s\t%s", number, shown)
		if notes := notesOf(cells[name]); len(notes) > 0 {
			fmt.Fprintf(&rows, "\t%s", strings.Join(strings.Fields(strings.Join(notes, "; ")), " "))
		}
		rows.WriteString("\n")
	}
	table := tabwriter.NewWriter(text, 0, 0, 3, ' ', 0)
	_, _ = io.WriteString(table, rows.String())
	_ = table.Flush() // neither fails: text takes all
}

// levels are numbers from 1, each above those of what the job needs.
func levels(names []string, cells map[string][]*configv1.Job) map[string]int {
	level := map[string]int{}
	var of func(name string) int
	of = func(name string) int {
		if level[name] == 0 {
			highest := 0
			for _, need := range cells[name][0].GetNeeds() {
				highest = max(highest, of(need))
			}
			level[name] = highest + 1
		}
		return level[name]
	}
	for _, name := range names {
		of(name)
	}
	return level
}

// notesOf say what is special about the cells of a job.
func notesOf(cells []*configv1.Job) []string {
	var notes, mayFail []string
	job := cells[0]
	if needs := job.GetNeeds(); len(needs) > 0 {
		notes = append(notes, "needs "+strings.Join(needs, ", "))
	}
	if condition := conditionText(job.GetCondition()); condition != "" {
		notes = append(notes, "if "+condition)
	}
	for _, cell := range cells {
		if cell.GetMayFail() {
			mayFail = append(mayFail, cell.GetTitle())
		}
	}
	switch {
	case len(mayFail) == len(cells):
		notes = append(notes, "may fail")
	case len(mayFail) > 0:
		notes = append(notes, "may fail: "+strings.Join(mayFail, ", "))
	}
	return notes
}

func conditionText(c *configv1.Condition) string {
	var events, on []string
	for _, e := range c.GetEvents() {
		events = append(events, word(e.String(), "EVENT_"))
	}
	for _, o := range c.GetOn() {
		on = append(on, word(o.String(), "ON_"))
	}
	var parts []string
	for _, part := range []struct {
		name   string
		values []string
	}{{"paths", c.GetPaths()}, {"branches", c.GetBranches()}, {"labels", c.GetLabels()}, {"events", events}, {"on", on}} {
		if len(part.values) > 0 {
			parts = append(parts, part.name+" "+strings.Join(part.values, ", "))
		}
	}
	return strings.Join(parts, " and ")
}

// word is a value of the contract as the file writes it.
func word(value, prefix string) string { return strings.ToLower(strings.TrimPrefix(value, prefix)) }
