package terminal

import (
	"html"
	"iter"
	"strings"
	"unicode/utf8"
)

// Highlight wraps parts of what Line has returned in mark elements: find is called with
// its text, and returns where the parts begin and end.
func Highlight(line string, find func(text []byte) iter.Seq2[int, int]) string {
	var text []byte
	for part, isTag := range parts(line) {
		if !isTag {
			text = append(text, html.UnescapeString(part)...)
		}
	}
	next, stop := iter.Pull2(find(text))
	defer stop()
	begin, end, more := next()
	if !more {
		return line
	}
	var marked strings.Builder
	at, inside := 0, false
	for part, isTag := range parts(line) {
		if isTag {
			if inside { // an element ends within the one that it begins in
				marked.WriteString("</mark>" + part + "<mark>")
			} else {
				marked.WriteString(part)
			}
			continue
		}
		if more && !inside && at >= begin {
			marked.WriteString("<mark>")
			inside = true
		}
		marked.WriteString(part)
		at += len(html.UnescapeString(part))
		if inside && at >= end {
			marked.WriteString("</mark>")
			inside = false
			begin, end, more = next()
		}
	}
	if inside {
		marked.WriteString("</mark>")
	}
	return marked.String()
}

// parts are the tags of a line, and its letters one by one, as they are written.
func parts(line string) iter.Seq2[string, bool] {
	return func(yield func(part string, isTag bool) bool) {
		for len(line) > 0 {
			_, size := utf8.DecodeRuneInString(line)
			isTag := line[0] == '<'
			if isTag {
				size = strings.IndexByte(line, '>') + 1
			} else if line[0] == '&' {
				size = strings.IndexByte(line, ';') + 1
			}
			if size <= 0 { // nothing that Line returns
				size = len(line)
			}
			if !yield(line[:size], isTag) {
				return
			}
			line = line[size:]
		}
	}
}
