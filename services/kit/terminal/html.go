package terminal

import (
	"bytes"
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	screen "github.com/buildkite/terminal-to-html/v3"
)

// Renderer makes HTML of what is printed, line after line, as a terminal would show
// each: colours and what else sets letters off as classes, such as term-fg31, and what
// was drawn over gone. Links lead to http and https addresses alone. All else is text:
// there are no images, no titles, and no line changes another.
type Renderer struct {
	screen *screen.Screen
	width  int
}

// minWidth is that of most lines; a screen is made anew for a longer one.
const minWidth = 512

// Style sets what the next line begins with, by the escape sequences that set it.
func (r *Renderer) Style(sequences []byte) error {
	if err := r.widen(0); err != nil {
		return err
	}
	sequences, _ = plain(sequences)
	_, err := r.screen.Write(append([]byte("\x1b[m"), sequences...))
	return err
}

// Line returns a line, which has no line feed, as HTML. Memory is bounded by its size.
func (r *Renderer) Line(text []byte) (string, error) {
	sequences, moved := plain(text)
	if err := r.widen(utf8.RuneCount(sequences) + moved + 1); err != nil {
		return "", err
	}
	if _, err := r.screen.Write(sequences); err != nil {
		return "", err
	}
	shown := r.screen.AsHTMLWithTimestamps(false)
	_, err := r.screen.Write([]byte(endLink + "\r\x1b[2K"))
	return unescape.Replace(shown), err
}

// unescape undoes what is escaped and need not be. In attributes none of these is.
var unescape = strings.NewReplacer("&#47;", "/", "&quot;", `"`, `<a href="`, `<a rel="noreferrer nofollow" href="`)

// widen has the screen hold a line of so many cells. What a wider one begins with is
// what the one before would go on with.
func (r *Renderer) widen(cells int) error {
	if r.screen == nil {
		r.width = max(minWidth, cells)
		made, err := screen.NewScreen(screen.WithSize(r.width, 1))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		r.screen = made
	}
	if cells <= r.width {
		return nil
	}
	r.width = max(cells, 2*r.width)
	return r.screen.SetSize(r.width, 1)
}

const endLink = "\x1b]8;;\x1b\\"

// maxMove is how far a line may move the cursor to the right, in cells and in all:
// what lies between is filled with blanks.
const maxMove = 4096

// plain leaves of a text what a line can show: letters, colours, what moves within
// the line or clears it, and links to where people may be led. moved is how far it
// moves to the right.
func plain(text []byte) (kept []byte, moved int) {
	kept = make([]byte, 0, len(text)+16)
	for len(text) > 0 {
		switch c := text[0]; {
		case c == 0x1b:
			size := sequence(text)
			stays, by := allowed(text[:size])
			if moved+by <= maxMove {
				kept, moved = append(kept, stays...), moved+by
			}
			text = text[size:]
		case c == '\t' || c == '\r' || c == '\b' || c >= 0x20 && c < 0x7f:
			kept, text = append(kept, c), text[1:]
		case c < utf8.RuneSelf: // a control character
			text = text[1:]
		default:
			letter, size := utf8.DecodeRune(text)
			if !unicode.IsControl(letter) {
				kept = utf8.AppendRune(kept, letter)
			}
			text = text[size:]
		}
	}
	return bytes.TrimRight(kept, "\r"), moved
}

// allowed is what stays of an escape sequence: nothing, most often. moves is how far
// that moves to the right at most.
func allowed(sequence []byte) (stays string, moves int) {
	if len(sequence) < 3 {
		return "", 0
	}
	last := len(sequence) - 1
	body := string(sequence[2:last])
	if sequence[1] == ']' {
		return link(sequence), 0
	}
	if sequence[1] != '[' || strings.Trim(body, "0123456789;:") != "" || len(body) > 64 {
		return "", 0
	}
	switch sequence[last] {
	case 'm':
		return colours(body), 0
	case 'C', 'G', '`':
		cells, err := strconv.Atoi(cmp.Or(body, "1"))
		if err != nil {
			return "", 0
		}
		command := sequence[last]
		if command == '`' {
			command = 'G'
		}
		return "\x1b[" + body + string(command), cells
	case 'J':
		if body == "" || body == "0" {
			return "\x1b[K", 0 // there is nothing below
		}
		return "", 0
	case 'D', 'K':
		return string(sequence), 0
	default:
		return "", 0
	}
}

// link is what stays of a sequence that begins or ends a link.
func link(sequence []byte) string {
	body, found := strings.CutPrefix(string(sequence[2:]), "8;")
	if !found {
		return ""
	}
	body = strings.TrimSuffix(strings.TrimSuffix(body, "\x07"), "\x1b\\")
	_, target, _ := strings.Cut(body, ";")
	target = strings.ReplaceAll(target, ";", "%3B") // which would end it
	address, err := url.Parse(target)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" {
		return endLink
	}
	return "\x1b]8;;" + address.String() + "\x1b\\"
}
