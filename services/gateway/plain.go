package gateway

import (
	"regexp"
	"strings"
)

// Escape sequences as ECMA-48 defines them: control sequences, strings that end
// with ST or BEL, and the rest, which are two characters. A string that does not
// end hides its line, and not all that comes after it.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -~])?`)

// plain is what a terminal's output says without its colours and movements:
// printable text, tabs and line ends.
func plain(output []byte) string {
	text := escapes.ReplaceAllString(strings.ToValidUTF8(string(output), "\uFFFD"), "")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, text)
}
