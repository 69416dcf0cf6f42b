package testreport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// walker goes through JSON value by value, none of which it holds as a whole.
type walker struct {
	decoder *json.Decoder
	depth   int
}

// object calls do for each key, which then reads the value. What is no object is
// passed over.
func (w *walker) object(do func(key string) error) error {
	return w.within('{', func() error {
		key, err := w.next()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		return do(name)
	})
}

// list calls do for each value of a list, which it reads. What is no list is passed
// over.
func (w *walker) list(do func() error) error { return w.within('[', do) }

func (w *walker) within(open json.Delim, do func() error) error {
	token, err := w.next()
	if err != nil {
		return err
	}
	if token != open {
		return w.rest(token)
	}
	if w.depth++; w.depth > maxDepth {
		return fmt.Errorf("its values are nested deeper than %d levels", maxDepth)
	}
	for w.decoder.More() {
		if err := do(); err != nil {
			return err
		}
	}
	w.depth--
	_, err = w.next()
	return err
}

// only is what to do with the keys of an object of which one matters.
func (w *walker) only(name string, do func() error) func(string) error {
	return func(key string) error {
		if key == name {
			return do()
		}
		return w.skip()
	}
}

func (w *walker) skip() error {
	token, err := w.next()
	if err != nil {
		return err
	}
	return w.rest(token)
}

// rest passes over what comes after the first token of a value.
func (w *walker) rest(first json.Token) error {
	depth := 0
	for token := first; ; {
		switch token {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth+w.depth > maxDepth {
				return fmt.Errorf("its values are nested deeper than %d levels", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		var err error
		if token, err = w.next(); err != nil {
			return err
		}
	}
}

func (w *walker) text() (string, error) {
	token, err := w.next()
	if err != nil {
		return "", err
	}
	if text, ok := token.(string); ok {
		return text, nil
	}
	return "", w.rest(token)
}

func (w *walker) number() (int64, error) {
	token, err := w.next()
	if err != nil {
		return 0, err
	}
	if number, ok := token.(float64); ok && number >= -1 && number < 1<<31 {
		return int64(number), nil
	}
	return -1, w.rest(token)
}

func (w *walker) next() (json.Token, error) {
	token, err := w.decoder.Token()
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	return token, err
}

// newClipJSON passes JSON on with its texts cut, and refuses numbers without end.
func newClipJSON(from io.Reader) io.Reader {
	return &clipJSON{from: from, in: make([]byte, 32<<10), first: true}
}

type clipJSON struct {
	from  io.Reader
	in    []byte
	out   []byte
	ready []byte
	err   error

	first   bool
	inText  bool
	slash   bool // the last byte begins an escape
	hex     int  // digits of one that are to come
	run     int
	dropped bool
}

func (c *clipJSON) Read(into []byte) (int, error) {
	for len(c.ready) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		n, err := c.from.Read(c.in)
		c.out = c.out[:0]
		in := c.in[:n]
		if c.first && n > 0 {
			c.first = false
			in = []byte(strings.TrimPrefix(string(in), "\ufeff"))
		}
		for _, b := range in {
			c.take(b)
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

func (c *clipJSON) take(b byte) {
	const maxWord = 4 << 10
	if !c.inText {
		c.out = append(c.out, b)
		switch {
		case b == '"':
			c.inText, c.run, c.dropped = true, 0, false
		case strings.IndexByte(" \t\r\n{}[],:", b) >= 0:
			c.run = 0
		default:
			if c.run++; c.run > maxWord && c.err == nil {
				c.err = errors.New("it has a number of more than 4 KiB")
			}
		}
		return
	}
	switch {
	case c.slash:
		c.slash = false
		if b == 'u' {
			c.hex = 4
		}
	case c.hex > 0:
		c.hex--
	case b == '"':
		c.out = append(c.out, b)
		c.inText, c.run = false, 0
		return
	default: // a cut is made where no character and no escape is on its way
		c.dropped = c.dropped || c.run >= MaxText && b&0xc0 != 0x80
		c.slash = b == '\\'
	}
	if !c.dropped {
		c.out = append(c.out, b)
	}
	c.run++
}
