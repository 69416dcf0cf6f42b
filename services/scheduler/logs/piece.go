package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// Notes is what is known of output besides its bytes.
type Notes struct {
	// Steps are the positions in the log where steps begin, in order.
	Steps []int64
	// Times says when what stands at a position, and after it, was printed; in order.
	Times []Stamp
}

// Stamp is when what stands at a position of the log was printed.
type Stamp struct {
	Position int64
	Time     time.Time
}

// piece is what an index knows of a part of a log. No step begins within it.
type piece struct {
	size  int64
	lines int64 // line feeds in it
	open  bool  // its last byte is no line feed
	step  bool  // a step begins with it
	style style
	times []timeMark
	marks []lineMark
}

// timeMark is when what stands at an offset of the piece was printed.
type timeMark struct {
	at     int64
	millis int64 // since 1970
}

// lineMark is a line of the piece that tells of something wrong.
type lineMark struct {
	after int64 // that many line feeds of the piece
	level Level
}

const (
	// pieceSize is up to where small pieces are made one: who wants a line reads so much.
	pieceSize = 64 << 10
	// pieceMarks bounds the marks of each level in a piece.
	pieceMarks = 16
	// timeGap is how far apart times are that are kept.
	timeGap = 50
)

// summarize says what an index has to know of data that stands at a position.
func summarize(position int64, data []byte, notes Notes) []piece {
	var all []piece
	steps, times := notes.Steps, notes.Times
	for len(data) > 0 {
		var p piece
		for len(steps) > 0 && steps[0] <= position {
			p.step = p.step || steps[0] == position
			steps = steps[1:]
		}
		part := data
		if len(steps) > 0 && steps[0] < position+int64(len(data)) {
			part = data[:steps[0]-position]
		}
		end := position + int64(len(part))
		p.size, p.open = int64(len(part)), part[len(part)-1] != '\n'
		p.lines = int64(bytes.Count(part, []byte{'\n'}))
		if p.step {
			p.style.reset = true
		}
		p.style = p.style.then(styleOf(part))
		for len(times) > 0 && times[0].Position < end {
			p.stamp(timeMark{max(0, times[0].Position-position), times[0].Time.UnixMilli()})
			times = times[1:]
		}
		for after, level := range levels(part) {
			p.mark(lineMark{after, level})
		}
		all, data, position = append(all, p), data[len(part):], end
	}
	return all
}

func (p *piece) stamp(t timeMark) {
	if n := len(p.times); n > 0 && t.millis-p.times[n-1].millis < timeGap {
		return
	}
	p.times = append(p.times, t)
}

func (p *piece) mark(m lineMark) {
	same := 0
	for _, other := range p.marks {
		if other.level == m.level {
			same++
		}
	}
	if same < pieceMarks {
		p.marks = append(p.marks, m)
	}
}

// join makes one piece of two that follow each other.
func (p *piece) join(next piece) {
	for _, t := range next.times {
		p.stamp(timeMark{t.at + p.size, t.millis})
	}
	for _, m := range next.marks {
		p.mark(lineMark{m.after + p.lines, m.level})
	}
	p.style = p.style.then(next.style)
	p.size, p.lines, p.open = p.size+next.size, p.lines+next.lines, next.open
}

// pieceVersion begins each text of pieces: what another Forge has written otherwise
// is made anew.
const pieceVersion = 1

const (
	pieceOpen = 1 << iota
	pieceStep
	pieceReset
)

func encodePieces(all []piece) []byte {
	text := []byte{pieceVersion}
	for _, p := range all {
		flags := uint64(0)
		for flag, set := range map[uint64]bool{pieceOpen: p.open, pieceStep: p.step, pieceReset: p.style.reset} {
			if set {
				flags |= flag
			}
		}
		for _, n := range []uint64{uint64(p.size), uint64(p.lines), flags, uint64(len(p.style.sequences))} { //nolint:gosec // sizes
			text = binary.AppendUvarint(text, n)
		}
		text = append(text, p.style.sequences...)
		text = binary.AppendUvarint(text, uint64(len(p.times)))
		last := timeMark{}
		for _, t := range p.times {
			text = binary.AppendUvarint(text, uint64(t.at-last.at)) //nolint:gosec // they are in order
			text = binary.AppendVarint(text, t.millis-last.millis)
			last = t
		}
		text = binary.AppendUvarint(text, uint64(len(p.marks)))
		after := int64(0)
		for _, m := range p.marks {
			text = binary.AppendUvarint(text, uint64(m.after-after)<<2|uint64(m.level)) //nolint:gosec // they are in order
			after = m.after
		}
	}
	return text
}

var errPieces = errors.New("the index of the lines of a log is broken")

// numbers reads varints; what is not there is 0, and said in the end.
type numbers struct {
	text   []byte
	broken bool
}

func (n *numbers) next() int64 {
	value, size := binary.Uvarint(n.text)
	if size <= 0 || value > 1<<62 {
		n.broken, n.text = true, nil
		return 0
	}
	n.text = n.text[size:]
	return int64(value)
}

func (n *numbers) signed() int64 {
	value, size := binary.Varint(n.text)
	if size <= 0 {
		n.broken, n.text = true, nil
		return 0
	}
	n.text = n.text[size:]
	return value
}

// count is how many follow, of which each takes a byte at least.
func (n *numbers) count() int64 {
	count := n.next()
	if count > int64(len(n.text)) {
		n.broken = true
		return 0
	}
	return count
}

func parsePieces(text []byte) ([]piece, error) {
	if len(text) == 0 || text[0] != pieceVersion {
		return nil, errPieces
	}
	var all []piece
	for n := (numbers{text: text[1:]}); len(n.text) > 0; {
		p := piece{size: n.next(), lines: n.next()}
		flags := n.next()
		p.open, p.step, p.style.reset = flags&pieceOpen != 0, flags&pieceStep != 0, flags&pieceReset != 0
		style := n.count()
		p.style.sequences, n.text = bytes.Clone(n.text[:style]), n.text[style:]
		last := timeMark{}
		for range n.count() {
			last = timeMark{last.at + n.next(), last.millis + n.signed()}
			p.times = append(p.times, last)
		}
		after := int64(0)
		for range n.count() {
			m := n.next()
			after += m >> 2
			p.marks = append(p.marks, lineMark{after, Level(m & 3)})
		}
		if n.broken || p.size < 1 || p.lines > p.size {
			return nil, errPieces
		}
		all = append(all, p)
	}
	return all, nil
}
