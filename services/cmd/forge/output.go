package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// output is how a verb prints an answer of Forge.
type output struct {
	Output string `short:"o" enum:"text,json" default:"text" placeholder:"FORM" help:"text, for people, or json, as the JSON API answers: a list is one document; what goes on is a document a line."`
	JSON   bool   `name:"json" help:"The same as -o json."`
}

func (o output) json() bool { return o.JSON || o.Output == "json" }

// print prints the answer as JSON, or has text written for people.
func (o output) print(answer proto.Message, text func(io.Writer)) error {
	if o.json() {
		return printJSON(os.Stdout, answer)
	}
	return printText(os.Stdout, text)
}

// printLine prints one of many answers, as a line.
func (o output) printLine(answer proto.Message) error {
	compact, err := compactJSON(answer)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(compact, '\n'))
	return err
}

// coloured is text for a terminal that shows colours. Each begins with a mark that nobody
// can guess, so that a title has none that others have written into it.
type coloured struct {
	strings.Builder

	mark string
}

// painted is text in a colour.
func (c *coloured) painted(colour, text string) string {
	if c.mark == "" {
		c.mark = rand.Text()
	}
	return c.mark + colour + "m" + text + c.mark + "0m"
}

// shown is the text as the terminal takes it.
func (c *coloured) shown() string {
	text := harmless(c.String())
	if c.mark == "" {
		return text
	}
	return strings.ReplaceAll(text, c.mark, "\x1b[")
}

// printText prints what text writes: on a terminal with colours, elsewhere without. What
// others have named, such as a title, cannot steer the terminal.
func printText(file *os.File, text func(io.Writer)) error {
	if wantsColour(file) {
		var all coloured
		text(&all)
		_, err := io.WriteString(file, all.shown())
		return err
	}
	var all strings.Builder
	text(&all)
	_, err := io.WriteString(file, harmless(all.String()))
	return err
}

// wantsColour reports whether a file is a terminal that wants colours (https://no-color.org).
func wantsColour(file *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isatty.IsTerminal(file.Fd())
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	amber = "33"
)

// paint colours text where out takes colours. In a table it is for the last column alone:
// colours count as text where columns are aligned.
func paint(out io.Writer, colour, text string) string {
	terminal, takes := out.(*coloured)
	if !takes || colour == "" {
		return text
	}
	return terminal.painted(colour, text)
}

// colourOf is the colour of a state.
func colourOf(state schedulerv1.Build_State) string {
	switch {
	case state == schedulerv1.Build_STATE_PASSED:
		return green
	case state == schedulerv1.Build_STATE_CANCELLED:
		return dim
	case state > schedulerv1.Build_STATE_PASSED:
		return red
	case state == schedulerv1.Build_STATE_UNSPECIFIED:
		return ""
	}
	return amber
}

// harmless is text without what steers a terminal, or has text read as another one.
func harmless(text string) string {
	if !strings.ContainsFunc(text, steers) {
		return text
	}
	var kept strings.Builder
	for text != "" {
		first, size := utf8.DecodeRuneInString(text)
		if !steers(first) {
			kept.WriteString(text[:size])
		}
		text = text[size:]
	}
	return kept.String()
}

func steers(r rune) bool {
	turns := r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' // the letters after it run the other way
	return turns || unicode.IsControl(r) && r != '\n' && r != '\t'
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

// compactJSON is an answer as printJSON prints it, on one line.
func compactJSON(answer proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return json.Marshal(json.RawMessage(text)) // protojson's own spaces vary on purpose
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
