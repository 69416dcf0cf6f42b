package logs

import (
	"bytes"
	"iter"
	"strings"
)

// Level is what a line tells of, by its words.
type Level int

const (
	// Plain lines tell of nothing wrong, as far as one sees.
	Plain Level = iota
	// Warning is a line that warns.
	Warning
	// Error is a line that tells of an error.
	Error
)

// word is one that tells of an error or a warning, where what stands around it suits.
type word struct {
	text  string
	level Level
	// within a word it counts, too, as in TypeError:
	within bool
	// follows is what must come next: one of these, or, where it is empty, the end of
	// the word.
	follows string
}

// words are what tools of the field write, by their first byte, which is all that
// most bytes are held against: compilers, test runners, package managers, log
// libraries, workflow commands. What only mentions errors is none: 0 errors, error
// handling.
var words = [256][]word{
	':': {
		{text: "::error", level: Error},
		{text: "::warning", level: Warning},
	},
	'E': {
		{text: "ERROR", level: Error},
		{text: "Error", level: Error, within: true, follows: ":"},
		{text: "ERR!", level: Error, follows: " \t\r\n"},
	},
	'F': {
		{text: "FAIL", level: Error},
		{text: "FAILED", level: Error},
		{text: "FAILURE", level: Error},
		{text: "FATAL", level: Error},
		{text: "Fatal error", level: Error},
	},
	'T': {{text: "Traceback (most recent call last)", level: Error, follows: ":"}},
	'W': {
		{text: "WARNING", level: Warning},
		{text: "WARN", level: Warning},
		{text: "Warning", level: Warning, within: true, follows: ":"},
	},
	'e': {{text: "error", level: Error, follows: ":[]!"}},
	'f': {
		{text: "fatal", level: Error, follows: ":"},
		{text: "fatal error", level: Error},
	},
	'p': {{text: "panic", level: Error, follows: ":"}},
	'w': {
		{text: "warning", level: Warning, follows: ":[]"},
		{text: "warn", level: Warning, follows: ":[]"},
	},
}

// seconds are, by the first byte of words, what follows it in all of them, in lower
// case; 0 where no word begins so. It spares most bytes a closer look.
var seconds = [256]byte{':': ':', 'E': 'r', 'F': 'a', 'T': 'r', 'W': 'a', 'e': 'r', 'f': 'a', 'p': 'a', 'w': 'a'}

// levels are the lines of data that tell of something, each by the line feeds before it.
func levels(data []byte) iter.Seq2[int64, Level] {
	return func(yield func(int64, Level) bool) {
		after, counted := int64(0), 0 // line feeds before counted
		line, found := int64(0), Plain
		for n := 0; n+1 < len(data); n++ {
			second := seconds[data[n]]
			if second == 0 || data[n+1]|0x20 != second {
				continue
			}
			level := levelAt(data, n)
			if level == Plain {
				continue
			}
			after += int64(bytes.Count(data[counted:n], []byte{'\n'}))
			counted = n
			if found != Plain && line != after && !yield(line, found) {
				return
			}
			if line != after {
				found = Plain
			}
			line, found = after, max(found, level)
			if found == Error { // nothing is worse: on to the end of the line
				next := bytes.IndexByte(data[n:], '\n')
				if next < 0 {
					break
				}
				n += next
			}
		}
		if found != Plain {
			yield(line, found)
		}
	}
}

// levelAt is what the word tells of that begins at n, if one does.
func levelAt(data []byte, n int) (found Level) {
	for _, w := range words[data[n]] {
		if w.level > found && bytes.HasPrefix(data[n:], []byte(w.text)) && w.fits(data, n) {
			found = w.level
		}
	}
	return found
}

// LevelOf is what a line tells of.
func LevelOf(line []byte) Level {
	for _, level := range levels(line) {
		return level
	}
	return Plain
}

// fits reports whether the word stands at n by itself, with what must follow.
func (w word) fits(data []byte, n int) bool {
	if !w.within && n > 0 && letter(data[n-1]) && !endsColours(data[:n]) {
		return false
	}
	rest := data[n+len(w.text):]
	for sequence := colours(rest); sequence != nil; sequence = colours(rest) {
		rest = rest[len(sequence):]
	}
	switch {
	case w.follows == "":
		return len(rest) == 0 || !letter(rest[0])
	case len(rest) == 0:
		return w.text == "ERR!" // at the end of the line
	default:
		return strings.IndexByte(w.follows, rest[0]) >= 0
	}
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

// endsColours reports whether data ends with a sequence that sets colours.
func endsColours(data []byte) bool {
	at := bytes.LastIndexByte(data[max(0, len(data)-64):], escape)
	if at < 0 {
		return false
	}
	sequence := data[max(0, len(data)-64)+at:]
	return len(colours(sequence)) == len(sequence)
}
