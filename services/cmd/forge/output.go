package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// output is how a verb prints an answer of Forge.
type output struct {
	JSON bool `name:"json" help:"Print the answer as JSON."`
}

// print prints the answer as JSON, or has text written for people.
func (o output) print(answer proto.Message, text func(io.Writer)) error {
	if o.JSON {
		return printJSON(os.Stdout, answer)
	}
	var all strings.Builder
	text(&all)
	_, err := io.WriteString(os.Stdout, all.String())
	return err
}

// printJSON prints as the JSON API answers, indented.
func printJSON(out io.Writer, answer proto.Message) error {
	compact, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return err
	}
	var value json.RawMessage = compact
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ") // protojson's own varies on purpose
	return encoder.Encode(value)
}

// printTable prints rows whose columns are aligned.
func printTable(out io.Writer, rows [][]string) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(table, strings.TrimRight(strings.Join(row, "\t"), "\t")) //nolint:errcheck // out is memory
	}
	_ = table.Flush()
}

// localTime is a time as people read it; - where there is none.
func localTime(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().Local().Format(time.DateTime) //nolint:gosmopolitan // people read their own clock
}
