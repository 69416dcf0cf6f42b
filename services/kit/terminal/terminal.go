// Package terminal reads what commands print as a terminal shows it, for places that are none.
package terminal

import (
	"regexp"
	"strings"
	"unicode"
)

// escapes are escape sequences as ECMA-48 defines them: control sequences, strings that end with ST or BEL, and the rest,
// of which some have characters between. What breaks off is one as well: a string without an end hides its line, and not
// all that comes after it.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)`)

// homes move the cursor to the first column, as a carriage return does.
var homes = regexp.MustCompile(`\x1b\[[01]?[G` + "`" + `]`)

// Strip removes escape sequences: colours, moves of the cursor, titles, the targets of links. All else stays, other
// control characters too; the result has no ESC.
func Strip(text string) string { return escapes.ReplaceAllString(text, "") }

// Text is what an output is left showing: no escape sequences, no control characters but tabs and line ends, and of a line
// that was drawn over, such as a progress bar, its last state. What is not UTF-8 becomes U+FFFD.
func Text(output []byte) string {
	text := strings.ToValidUTF8(string(output), "\uFFFD")
	lines := strings.Split(Strip(homes.ReplaceAllString(text, "\r")), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		lines[i] = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) && r != '\t' {
				return -1
			}
			return r
		}, line[strings.LastIndexByte(line, '\r')+1:])
	}
	return strings.Join(lines, "\n")
}
