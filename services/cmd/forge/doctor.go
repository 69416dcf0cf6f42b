package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/forge-ci/forge/services/doctor"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wire"
	"github.com/forge-ci/forge/services/wording"
)

type examine struct {
	wire.Settings
	settings.Siblings
	Apart bool `help:"The services run apart, each at its own address."`
	output
}

// Run prints what is found, and fails where anything is broken.
func (e examine) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	found := doctor.Examine(ctx, doctor.Deps{Settings: e.Settings, Siblings: e.Siblings, Apart: e.Apart})
	var err error
	if e.json() {
		err = printFindingsJSON(os.Stdout, found)
	} else {
		err = printText(os.Stdout, func(out io.Writer) { printFindings(out, found) })
	}
	if err != nil {
		return err
	}
	if broken := countLevel(found, doctor.Broken); broken > 0 {
		return fmt.Errorf("%s to be mended", wording.Count(broken, "finding"))
	}
	return nil
}

func countLevel(found []doctor.Finding, level doctor.Level) (n int) {
	for _, f := range found {
		if f.Level == level {
			n++
		}
	}
	return n
}

func printFindingsJSON(out io.Writer, found []doctor.Finding) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Broken   int              `json:"broken"`
		Warnings int              `json:"warnings"`
		Findings []doctor.Finding `json:"findings"`
	}{countLevel(found, doctor.Broken), countLevel(found, doctor.Warning), found})
}

// printFindings prints a line for each finding below its group, and below it how it is
// mended.
func printFindings(out io.Writer, found []doctor.Finding) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) } // out is memory
	marks := map[doctor.Level][2]string{doctor.Fine: {"ok", green}, doctor.Warning: {"warning", amber}, doctor.Broken: {"BROKEN", red}, doctor.Skipped: {"skipped", dim}}
	group := ""
	for _, f := range found {
		if f.Group != group {
			group = f.Group
			say("%s\n", group)
		}
		mark := paint(out, marks[f.Level][1], fmt.Sprintf("%-7s", marks[f.Level][0]))
		say("  %s  %s: %s\n", mark, f.Check, f.Text)
		if f.Fix != "" {
			say("           → %s\n", f.Fix)
		}
	}
}
