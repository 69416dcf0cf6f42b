// Package find finds a text or a regular expression in lines, many at a time.
package find

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// Query is what is looked for.
type Query struct {
	Text string
	// Regex says that the text is a regular expression, in RE2's syntax.
	Regex bool
	// MatchCase says that upper and lower case differ.
	MatchCase bool
}

// MaxQuery is the longest text that is looked for, in bytes.
const MaxQuery = 1000

// Finder finds a query. Several may use it at once, each with a Scratch of its own.
type Finder struct {
	// literal is in whatever is found; in lower case where fold is set. Empty: no
	// such text is known.
	literal []byte
	fold    bool
	regex   *regexp.Regexp // nil: the literal is all there is to it
}

// Scratch is memory that is used again.
type Scratch struct{ lower []byte }

// Compile returns what finds a query.
func Compile(q Query) (*Finder, error) {
	switch {
	case q.Text == "":
		return nil, errors.New("the query is empty")
	case len(q.Text) > MaxQuery:
		return nil, fmt.Errorf("the query has %d bytes, more than %d", len(q.Text), MaxQuery)
	case !utf8.ValidString(q.Text):
		return nil, errors.New("the query is not UTF-8")
	}
	text, ascii := q.Text, isASCII(q.Text)
	if !q.Regex && (q.MatchCase || ascii) {
		f := &Finder{literal: []byte(text), fold: !q.MatchCase}
		if f.fold {
			lower(f.literal, f.literal)
		}
		return f, nil
	}
	if !q.Regex {
		text = regexp.QuoteMeta(text)
	}
	if !q.MatchCase {
		text = "(?i)" + text
	}
	regex, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("no regular expression: %w", err)
	}
	f := &Finder{regex: regex}
	if tree, err := syntax.Parse(text, syntax.Perl); err == nil {
		f.literal, f.fold = required(tree.Simplify())
	}
	return f, nil
}

// Overlap is how much of the end of a part of a line has to be looked at again, with
// what comes after it, so that a hit on the border is found; an expression's is not.
func (f *Finder) Overlap() int {
	if f.regex != nil {
		return 0
	}
	return len(f.literal) - 1
}

// required is the longest text that is in all that an expression finds, as far as one sees.
func required(re *syntax.Regexp) (literal []byte, fold bool) {
	switch re.Op {
	case syntax.OpLiteral:
		text := string(re.Rune)
		fold = re.Flags&syntax.FoldCase != 0
		if fold && !isASCII(text) {
			return nil, false
		}
		literal = []byte(text)
		if fold {
			lower(literal, literal)
		}
		return literal, fold
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if other, folds := required(sub); len(other) > len(literal) {
				literal, fold = other, folds
			}
		}
		return literal, fold
	default:
		return nil, false
	}
}

// Each are the hits in lines that end with line feeds, as the places where they begin and end, in order. None goes beyond a line, and none is empty.
func (f *Finder) Each(text []byte, scratch *Scratch) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		switch {
		case f.regex == nil:
			f.literals(text, scratch, func(at int) (int, bool) {
				end := at + len(f.literal)
				return end, yield(at, end)
			})
		case len(f.literal) > 0:
			f.literals(text, scratch, func(at int) (int, bool) {
				begin, end := lineAround(text, at)
				return end, f.inLine(text, begin, end, yield)
			})
		default:
			for begin := 0; begin < len(text); {
				_, end := lineAround(text, begin)
				if !f.inLine(text, begin, end, yield) {
					return
				}
				begin = end + 1
			}
		}
	}
}

// literals calls with each place of the literal, and goes on where that says.
func (f *Finder) literals(text []byte, scratch *Scratch, found func(at int) (next int, more bool)) {
	if f.fold {
		if cap(scratch.lower) < len(text) {
			scratch.lower = make([]byte, len(text))
		}
		lower(scratch.lower[:len(text)], text)
		text = scratch.lower[:len(text)]
	}
	for from := 0; from <= len(text); {
		at := bytes.Index(text[from:], f.literal)
		if at < 0 {
			return
		}
		next, more := found(from + at)
		if !more {
			return
		}
		from = next
	}
}

func (f *Finder) inLine(text []byte, begin, end int, yield func(int, int) bool) bool {
	for _, hit := range f.regex.FindAllIndex(text[begin:end], -1) {
		if hit[0] < hit[1] && !yield(begin+hit[0], begin+hit[1]) {
			return false
		}
	}
	return true
}

// lineAround is where the line begins and ends, without its line feed, that a place is in.
func lineAround(text []byte, at int) (begin, end int) {
	begin = bytes.LastIndexByte(text[:at], '\n') + 1
	end = bytes.IndexByte(text[at:], '\n')
	if end < 0 {
		return begin, len(text)
	}
	return begin, at + end
}

func isASCII(text string) bool {
	for n := range len(text) {
		if text[n] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// lower writes src into dst, of the same length, with A to Z as a to z.
func lower(dst, src []byte) {
	dst = dst[:len(src)]
	for n, c := range src {
		if c-'A' < 26 {
			c += 'a' - 'A'
		}
		dst[n] = c
	}
}
