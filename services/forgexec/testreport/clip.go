package testreport

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// errDocumentType is said of XML that could define entities.
var errDocumentType = errors.New("it has a document type, which is not read")

// Of what is not text, longer ones are refused.
const (
	maxTag         = 256 << 10
	maxInstruction = 4 << 10
)

// clip passes XML on with its texts and values cut at MaxText and without its
// comments, so that whoever decodes it, a text as a whole, needs little memory.
// Control characters, which XML may not have and test programs print, become blanks.
type clip struct {
	from  io.Reader
	in    []byte
	out   []byte
	ready []byte // of out, not read yet
	err   error

	state    func(*clip, byte)
	run      int // bytes that were kept of a text, or that a tag has
	tag      int // bytes that a tag has, while a value in it is read
	dropping bool
	entity   int    // how many bytes an entity may still have; 0: none is being read
	last     []byte // what may be an end, or a beginning
	quote    byte
}

func newClip(from io.Reader) *clip {
	return &clip{from: from, in: make([]byte, 32<<10), state: (*clip).text}
}

func (c *clip) Read(into []byte) (int, error) {
	for len(c.ready) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		n, err := c.from.Read(c.in)
		c.out = c.out[:0]
		for rest := c.in[:n]; len(rest) > 0 && c.err == nil; rest = rest[1:] {
			if c.dropping && c.quote == 0 { // long outputs are most of a large file
				if skip := bytes.IndexAny(rest, "<]>"); skip != 0 {
					if skip < 0 {
						skip = len(rest)
					}
					c.last = c.last[:0]
					if rest = rest[skip:]; len(rest) == 0 {
						break
					}
				}
			}
			c.state(c, rest[0])
		}
		if c.err == nil {
			c.err = err
		}
		c.ready = c.out
	}
	n := copy(into, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

func (c *clip) begin(state func(*clip, byte)) {
	c.state, c.run, c.dropping, c.entity, c.last = state, 0, false, 0, c.last[:0]
}

// keep passes a byte of a text on while there is room for it, never half a character
// or half an entity.
func (c *clip) keep(b byte) {
	if c.dropping {
		return
	}
	if c.run >= MaxText && c.entity == 0 && b&0xc0 != 0x80 {
		c.dropping = true
		return
	}
	switch {
	case b == '&':
		c.entity = 12
	case b == ';':
		c.entity = 0
	case c.entity > 0:
		c.entity--
	}
	if b < ' ' && b != '\t' && b != '\n' && b != '\r' {
		b = ' '
	}
	c.out = append(c.out, b)
	c.run++
}

func (c *clip) text(b byte) {
	if b != '<' {
		c.keep(b)
		return
	}
	c.begin((*clip).open)
}

// literal begins, after a <, a text without markup.
const literal = "![CDATA["

// open is after a <.
func (c *clip) open(b byte) {
	c.last = append(c.last, b)
	switch begun := string(c.last); {
	case b == '?' && len(begun) == 1:
		c.out = append(c.out, "<?"...)
		c.begin((*clip).instruction)
	case begun == "!--":
		c.begin((*clip).comment)
	case begun == literal:
		c.out = append(c.out, "<![CDATA["...)
		c.begin((*clip).cdata)
	case !strings.HasPrefix(literal, begun) && begun != "!-":
		if begun[0] == '!' {
			c.err = errDocumentType
			return
		}
		c.out = append(append(c.out, '<'), c.last...)
		c.begin((*clip).inTag)
		if b == '>' { // which is wrong, as whoever decodes it will say
			c.begin((*clip).text)
		}
	}
}

func (c *clip) inTag(b byte) {
	c.out = append(c.out, b)
	c.run++
	switch {
	case c.run > maxTag:
		c.err = errors.New("it has a tag of more than 256 KiB")
	case b == '>':
		c.begin((*clip).text)
	case b == '"' || b == '\'':
		c.tag, c.quote = c.run, b
		c.begin((*clip).value)
	}
}

func (c *clip) value(b byte) {
	if b != c.quote {
		c.keep(b)
		return
	}
	c.out = append(c.out, b)
	tag := c.tag + c.run
	c.begin((*clip).inTag)
	c.run, c.quote = tag, 0
}

func (c *clip) instruction(b byte) {
	c.out = append(c.out, b)
	if c.run++; c.run > maxInstruction {
		c.err = errors.New("it has a processing instruction of more than 4 KiB")
	} else if b == '>' && string(c.last) == "?" {
		c.begin((*clip).text)
		return
	}
	c.last = append(c.last[:0], b)
}

func (c *clip) comment(b byte) {
	if b == '>' && string(c.last) == "--" {
		c.begin((*clip).text)
		return
	}
	c.remember(b)
}

func (c *clip) cdata(b byte) {
	if b == '>' && string(c.last) == "]]" {
		if c.dropping {
			c.out = append(c.out, "]]"...)
		}
		c.out = append(c.out, '>')
		c.begin((*clip).text)
		return
	}
	c.remember(b)
	c.keep(b)
}

// remember keeps the last two bytes.
func (c *clip) remember(b byte) {
	if len(c.last) == 2 {
		c.last[0] = c.last[1]
		c.last = c.last[:1]
	}
	c.last = append(c.last, b)
}
