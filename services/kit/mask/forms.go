package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
)

// shortestLine is the length from which a line of a secret is hidden by itself.
const shortestLine = 8

// pattern is one form of a secret.
type pattern struct {
	text string
	// least is how much of the text is the secret; what comes after it is, as far
	// as it is there.
	least int
	// lines: line ends may stand in it.
	lines bool
}

func whole(text string) pattern { return pattern{text: text, least: len(text)} }

// earlyBreak: a line end that comes before so many characters counts only where
// the text before is base64 too. Else every line whose last character a secret
// begins with would have to be held back.
const earlyBreak = 8

// match is how much of a text that begins with the pattern belongs to it, and
// whether more may once the text goes on. inLine: the text stands in a line of
// base64.
func (p pattern) match(text []byte, inLine bool) (length int, more bool) {
	if !p.lines {
		n := min(len(text), len(p.text))
		if string(text[:n]) != p.text[:n] {
			return 0, false
		}
		if n < len(p.text) {
			return 0, true
		}
		return n, false
	}
	at := 0
	for i := range len(p.text) {
		if breaks := i >= earlyBreak || i > 0 && inLine; breaks {
			at += lineEnd(text[at:])
			if string(text[at:]) == "\r" {
				return length, true
			}
		}
		if at == len(text) {
			return length, true
		}
		if text[at] != p.text[i] {
			break
		}
		if at++; i+1 >= p.least {
			length = at
		}
	}
	return length, false
}

// lineEnd is the length of the line end that a text begins with.
func lineEnd(text []byte) int {
	switch {
	case bytes.HasPrefix(text, []byte("\n")):
		return 1
	case bytes.HasPrefix(text, []byte("\r\n")):
		return 2
	default:
		return 0
	}
}

// beginning is how a pattern begins.
type beginning int

const (
	broken   beginning = iota + 1 // with a line end
	unbroken                      // without
)

// beginnings are the first three bytes in a text.
func (p pattern) beginnings() map[[3]byte]beginning {
	a, b, c := p.text[0], p.text[1], p.text[2]
	all := map[[3]byte]beginning{{a, b, c}: unbroken}
	if p.lines {
		for _, bytes := range [][3]byte{{a, '\n', b}, {a, b, '\n'}, {a, '\r', '\n'}, {a, b, '\r'}} {
			all[bytes] = broken
		}
	}
	return all
}

// forms are the ways in which a secret may be printed; none of one too short.
func forms(secret string) []pattern {
	trimmed := strings.TrimSpace(secret)
	if len(trimmed) < Shortest {
		return nil
	}
	all := []pattern{
		whole(trimmed),
		whole(strings.ReplaceAll(trimmed, "\n", "\r\n")), // by way of a terminal
		whole(url.QueryEscape(trimmed)), whole(url.PathEscape(trimmed)),
		whole(strings.ReplaceAll(trimmed, `'`, `'\''`)), whole(strings.ReplaceAll(trimmed, `'`, `'"'"'`)), // set -x
	}
	for _, escape := range []bool{true, false} {
		all = append(all, whole(inJSON(trimmed, escape)))
	}
	if lines := strings.Split(trimmed, "\n"); len(lines) > 1 {
		for _, line := range lines {
			if line = strings.TrimSpace(line); len(line) >= shortestLine {
				all = append(all, whole(line))
			}
		}
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			all = append(all, encoded(encoding, trimmed, before))
		}
	}
	return all
}

// inJSON is a text as it stands between the quotes.
func inJSON(text string, escapeHTML bool) string {
	var quoted strings.Builder
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(escapeHTML)
	if err := encoder.Encode(text); err != nil { // which cannot be
		return text
	}
	return strings.TrimSuffix(strings.TrimPrefix(quoted.String(), `"`), "\"\n")
}

// encoded is a secret in base64 that comes after so many other bytes, modulo 3.
// The characters that hold bits of its neighbours are left out, but for the last,
// which is what it is here where nothing comes after the secret.
func encoded(encoding *base64.Encoding, secret string, before int) pattern {
	const bits = 6 // in a character
	text := encoding.EncodeToString(append(make([]byte, before), secret...))
	first := (8*before + bits - 1) / bits
	last := 8 * (before + len(secret)) / bits
	return pattern{text: text[first:], least: last - first, lines: true}
}
