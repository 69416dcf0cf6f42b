package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/forge-ci/forge/services/doctor"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wording"
)

type version struct {
	doctor.Where
	Rooms bool `help:"Ask the Forge that runs which version each of its services is, and whether they fit together; exit with 1 where some do not, with 4 where one does not answer."`
	output
}

// Run prints the version alone, so that scripts can use it, unless services are asked for.
func (v version) Run() error {
	if !v.Rooms && !v.json() {
		_, err := fmt.Fprintln(os.Stdout, settings.Version)
		return err
	}
	said := saidVersions{Version: settings.Version}
	if v.Rooms {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		said.Processes = doctor.Versions(ctx, v.Where)
		said.Misfits = doctor.Misfits(said.Processes)
	}
	var err error
	if v.json() {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(said)
	} else {
		err = printText(os.Stdout, said.print)
	}
	if err != nil {
		return err
	}
	return said.verdict()
}

// saidVersions is what the verb prints as JSON.
type saidVersions struct {
	Version   string            `json:"version"` // of this program
	Processes []*doctor.Process `json:"processes,omitempty"`
	Misfits   []doctor.Misfit   `json:"misfits,omitempty"`
}

func (s saidVersions) print(out io.Writer) {
	fmt.Fprintln(out, s.Version) //nolint:errcheck // out is memory
	rows := [][]string{{"SERVICES", "ADDRESS", "VERSION", "SCHEMA"}}
	for _, p := range s.Processes {
		var schemas []string
		for _, one := range p.Schemas {
			schemas = append(schemas, strconv.FormatInt(one.Known, 10))
		}
		rows = append(rows, []string{strings.Join(p.Rooms, ","), p.Address, cmp.Or(p.Version, "-"), cmp.Or(strings.Join(schemas, ","), "-")})
	}
	if len(rows) > 1 {
		printTable(out, rows)
	}
	for _, m := range s.Misfits {
		fmt.Fprintf(out, "%s: %s\n  → %s\n", paint(out, red, "does not fit"), m.Text, m.Fix) //nolint:errcheck // out is memory
	}
}

// verdict is an error where something does not fit, or cannot be known to.
func (s saidVersions) verdict() error {
	if n := len(s.Misfits); n > 0 {
		return fmt.Errorf("services do not fit together in %s", wording.Count(n, "point"))
	}
	for _, p := range s.Processes {
		if p.Error != "" {
			return codedError{exitNobody, fmt.Errorf("%s at %s does not answer: %s", strings.Join(p.Rooms, ", "), p.Address, p.Error)}
		}
	}
	return nil
}
