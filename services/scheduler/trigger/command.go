package trigger

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// MostCommands bounds what one comment asks for.
const MostCommands = 5

// commandLine is a line that holds a command and nothing else. Markdown takes up
// to three spaces before a paragraph for nothing.
var commandLine = regexp.MustCompile(`(?i)^ {0,3}/forge(?:[ \t]+(\S+))?(?:[ \t]+(\S+))?[ \t]*$`)

// Command is what a line of a comment asks for, in lower case.
type Command struct{ Name, Argument string }

// Commands are those of a comment, in order and at most MostCommands; more
// reports whether there are others behind them. A command stands alone on a line
// of a paragraph, as GitHub shows it: what stands in code, in a quote, in a list
// or in HTML, comments included, is no command.
func Commands(body string) (found []Command, more bool) {
	// GitHub sends what browsers send, which is CRLF.
	source := []byte(strings.ReplaceAll(body, "\r\n", "\n"))
	document := goldmark.DefaultParser().Parse(text.NewReader(source))
	for block := document.FirstChild(); block != nil; block = block.NextSibling() {
		// A line of dashes below a paragraph makes a heading of it, as a signature does.
		if block.Kind() != ast.KindParagraph && block.Kind() != ast.KindHeading {
			continue
		}
		for _, segment := range block.Lines().Sliced(0, block.Lines().Len()) {
			start := bytes.LastIndexByte(source[:segment.Start], '\n') + 1
			match := commandLine.FindSubmatch(bytes.TrimRight(source[start:segment.Stop], "\r\n"))
			if match == nil || !plain(block, segment, source) {
				continue
			}
			if len(found) == MostCommands {
				return found, true
			}
			found = append(found, Command{strings.ToLower(string(match[1])), strings.ToLower(string(match[2]))})
		}
	}
	return found, false
}

// plain reports of a line of a block whether all of it is text of the block's own,
// and not of code, HTML or a link that may have begun on a line before.
func plain(block ast.Node, line text.Segment, source []byte) bool {
	left := len(bytes.TrimSpace(source[line.Start:line.Stop]))
	for node := block.FirstChild(); node != nil; node = node.NextSibling() {
		if piece, ok := node.(*ast.Text); ok {
			start, stop := max(piece.Segment.Start, line.Start), min(piece.Segment.Stop, line.Stop)
			if start < stop {
				left -= len(bytes.TrimRight(source[start:stop], " \t\n"))
			}
		}
	}
	return left <= 0
}
