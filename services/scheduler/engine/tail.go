package engine

import "strings"

// LastLines is the end of a text within the bounds of Tail, cut at lines where that
// is possible.
func LastLines(text string) string {
	if over := len(text) - TailBytes; over > 0 {
		text = text[over:]
		if _, whole, found := strings.Cut(text, "\n"); found {
			text = whole
		}
	}
	lines := strings.SplitAfter(text, "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	return strings.Join(lines[max(0, len(lines)-TailLines):], "")
}
