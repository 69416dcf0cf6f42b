package buildfile

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Format writes the problems of a file for people: for each a line as compilers write
// it, and the place in the file below.
func Format(file string, problems []*Problem) string {
	var text strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&text, "%s:%d:%d: %s\n", file, p.GetLine(), p.GetColumn(), p.GetMessage())
		if p.GetSnippet() != "" {
			text.WriteString(p.GetSnippet() + "\n")
		}
	}
	return text.String()
}

// around is how many characters a snippet shows of a long line on either side.
const around = 40

// snippet is the line of a problem with a mark below its column; "" for a blank
// line. Nothing of it acts on a terminal.
func snippet(text []byte, p *Problem) string {
	var shown []rune
	first := max(int(p.GetColumn())-around, 1)
	column := 0
	for _, r := range string(lineOf(text, p)) {
		switch column++; {
		case column < first:
			continue
		case column == first && first > 1, column == first+2*around:
			r = '…'
		case r == '\t':
			r = ' '
		case !unicode.IsPrint(r):
			r = '\ufffd'
		}
		shown = append(shown, r)
		if column == first+2*around {
			break
		}
	}
	line := strings.TrimRight(string(shown), " ")
	if line == "" {
		return ""
	}
	number := strconv.Itoa(int(p.GetLine()))
	mark := min(int(p.GetColumn())-first, len(shown))
	return fmt.Sprintf("  %s | %s\n  %*s | %*s", number, line, len(number), "", mark+1, "^")
}

// lineOf is the line of a problem, without its end; empty after the last.
func lineOf(text []byte, p *Problem) []byte {
	for range p.GetLine() - 1 {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return nil
		}
		text = text[end+1:]
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}
