// Package mask hides secrets in what passes through: each place where one stands
// becomes ***. It knows a secret as it is, each longer line of it, and as
// programs tend to print it: in base64 (also in the middle of something else that
// is encoded, and broken into lines), in JSON, in an address, quoted for a shell.
//
// What comes out depends on the text alone, not on the pieces it comes in, and
// nothing is held back but what may still become a secret.
package mask

import "slices"

// Shortest is the length in bytes, blanks around it aside, from which a value is
// hidden. Shorter ones stand everywhere by chance.
const Shortest = 4

const hidden = "***"

// Masker knows some secrets. It may be used by several goroutines.
type Masker struct {
	patterns map[[3]byte][]pattern // by how they may begin in a text
	filter   filter
	ones     [256]bool
	twos     map[[2]byte]beginning
}

// New returns nil, which hides nothing, where there is nothing to hide.
func New(secrets []string) *Masker {
	m := &Masker{patterns: map[[3]byte][]pattern{}, twos: map[[2]byte]beginning{}}
	seen := map[string]bool{}
	for _, secret := range secrets {
		for _, p := range forms(secret) {
			if !seen[p.text] {
				seen[p.text] = true
				m.add(p)
			}
		}
	}
	if len(seen) == 0 {
		return nil
	}
	return m
}

func (m *Masker) add(p pattern) {
	m.ones[p.text[0]] = true
	for bytes, begin := range p.beginnings() {
		m.patterns[bytes] = append(m.patterns[bytes], p)
		word, bit := where(uint32(bytes[0]) | uint32(bytes[1])<<8 | uint32(bytes[2])<<16)
		m.filter[word] |= 1 << bit
		two := [2]byte(bytes[:2])
		m.twos[two] = max(m.twos[two], begin)
	}
}

// String hides secrets in a whole text.
func (m *Masker) String(text string) string {
	s := m.Stream()
	return string(s.Write([]byte(text))) + string(s.Flush())
}

// Stream begins a text that comes in pieces.
func (m *Masker) Stream() *Stream { return &Stream{masker: m} }

// Stream is one text.
type Stream struct {
	masker *Masker
	held   []byte // may still become a secret
	covers int    // as much of held belongs to a secret already
	inside bool   // of a secret, of which covers is what is left
	run    int    // characters of base64 right before held
}

// Write takes the next piece, which becomes the stream's, and returns what is
// certain by now.
func (s *Stream) Write(piece []byte) []byte {
	if s.masker == nil || len(piece) == 0 {
		return piece
	}
	if len(s.held) > 0 {
		piece = slices.Concat(s.held, piece)
	}
	return s.scan(piece, false)
}

// Flush ends the text and returns the rest of it.
func (s *Stream) Flush() []byte {
	text := s.held
	s.held = nil
	if s.masker == nil {
		return nil
	}
	return s.scan(text, true)
}

func (s *Stream) scan(text []byte, final bool) []byte {
	var out []byte
	plain := 0 // from where on text is to be handed on as it is
	end := s.covers
	at := 0
	for {
		if s.inside && at >= end {
			out = append(out, hidden...)
			s.inside, plain = false, at
		}
		if !s.inside {
			at = s.masker.next(text, at)
		}
		if at == len(text) {
			break
		}
		length, undecided := s.masker.match(text[at:], s.runBefore(text, at) >= lineRun)
		if undecided && !final {
			break
		}
		if length > 0 {
			if !s.inside {
				out = append(out, text[plain:at]...)
				s.inside = true
			}
			end = max(end, at+length) // what overlaps is one
		}
		at++
	}
	s.run = s.runBefore(text, at)
	s.held, s.covers = slices.Clone(text[at:]), max(end-at, 0)
	switch {
	case s.inside:
		return out
	case out == nil:
		return text[:at]
	default:
		return append(out, text[plain:at]...)
	}
}

// lineRun is how many characters of base64 make what follows them a part of it.
const lineRun = 32

// runBefore counts those right before a position, as far as lineRun.
func (s *Stream) runBefore(text []byte, at int) int {
	n := 0
	for at > 0 && n < lineRun && inBase64(text[at-1]) {
		at--
		n++
	}
	if at == 0 {
		n += s.run
	}
	return min(n, lineRun)
}

func inBase64(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '+' || b == '/' || b == '-' || b == '_'
}

// filter has a bit for each three bytes that a secret may begin with; some others
// share it.
type filter [1 << 12]uint32

// where is the bit of three bytes, the first of them the lowest.
func where(bytes uint32) (word, bit uint32) {
	hash := bytes * 0x9E3779B1 >> 15
	return hash >> 5, hash & 31
}

// next is the first position from which on there may be a secret. Of the last two
// nobody can tell.
func (m *Masker) next(text []byte, at int) int {
	if at+2 >= len(text) {
		return at
	}
	three := uint32(text[at])<<8 | uint32(text[at+1])<<16
	for i, b := range text[at+2:] {
		three = three>>8 | uint32(b)<<16
		if word, bit := where(three); m.filter[word]>>bit&1 != 0 {
			return at + i
		}
	}
	return len(text) - 2
}

// match is how long the longest secret is that the text begins with, 0 where
// there is none, and whether there may be a longer one in what comes next. inLine:
// the text stands in a line of base64.
func (m *Masker) match(text []byte, inLine bool) (length int, undecided bool) {
	switch len(text) {
	case 1:
		return 0, m.ones[text[0]]
	case 2:
		begin := m.twos[[2]byte(text)]
		return 0, begin == unbroken || begin == broken && inLine
	}
	for _, p := range m.patterns[[3]byte(text)] {
		n, more := p.match(text, inLine)
		length, undecided = max(length, n), undecided || more
	}
	return length, undecided
}
