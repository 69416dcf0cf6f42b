package logs

import (
	"bytes"
	"iter"
	"time"

	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// longLine is the size beyond which a line is not read whole, but its ends.
	longLine = 64 << 10
	lineEnd  = 16 << 10
)

// Line is a line of a log.
type Line struct {
	Number, Offset, Size int64
	// Text is without the line feed; of a long line it is the beginning, and Tail the
	// end.
	Text, Tail []byte
	Open       bool
	Level      Level
	Time       time.Time
	// Step is that a step begins with it, and so without colours.
	Step bool
	// Style are the sequences that set the colours it begins with.
	Style []byte
}

// Lines are the lines of a log from one on, as far as the index knows them.
func Lines(read Page, x *Index, line int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		begin, found := x.before(line)
		if !found {
			yield(Line{}, fault.Newf(fault.NotFound, "the log has %d lines", x.LineCount()))
			return
		}
		lines(read, x, begin, func(at Line) bool { return at.Number >= line }, yield)
	}
}

// LinesFrom are the lines that begin at an offset or after it.
func LinesFrom(read Page, x *Index, offset int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		if begin, found := x.beforeOffset(offset); found {
			lines(read, x, begin, func(at Line) bool { return at.Offset >= offset }, yield)
		}
	}
}

func lines(read Page, x *Index, begin place, wanted func(Line) bool, yield func(Line, error) bool) {
	r := &lineReader{read: read, index: x, size: x.Size(), at: begin.offset}
	style := begin.style
	for number, skip := begin.line, begin.begun; r.at < r.size; number++ {
		line, err := r.next()
		if err != nil {
			yield(Line{}, err)
			return
		}
		line.Number = number
		if line.Step {
			style.sequences = nil
		}
		line.Style = style.sequences
		style = style.then(styleOf(line.Text)).then(styleOf(line.Tail))
		if skip || !wanted(line) {
			skip = false
			continue
		}
		line.Level, line.Time = LevelOf(line.Text), x.timeOf(line.Offset)
		if !yield(line, nil) {
			return
		}
	}
}

// lineReader reads line after line.
type lineReader struct {
	read  Page
	index *Index
	size  int64
	at    int64
	rest  []LogChunk // read ahead, from at on
}

// fill returns what stands at the reader's place, something at least.
func (r *lineReader) fill() ([]byte, error) {
	for fresh := false; ; fresh = true {
		for len(r.rest) > 0 {
			c := r.rest[0]
			if from := r.at - c.Position; from >= 0 && from < int64(len(c.Data)) {
				return c.Data[from:], nil
			}
			r.rest = r.rest[1:]
		}
		var err error
		if !fresh {
			r.rest, err = r.read(r.at)
		}
		if err == nil && len(r.rest) == 0 {
			err = fault.New(fault.NotFound, "the log is gone")
		}
		if err != nil {
			return nil, err
		}
	}
}

// next is the next line. There is one.
func (r *lineReader) next() (Line, error) {
	line := Line{Offset: r.at, Step: r.index.begins(r.at)}
	limit := min(r.index.nextStep(r.at), r.size)
	for r.at < limit {
		data, err := r.fill()
		if err != nil {
			return line, err
		}
		data = data[:min(int64(len(data)), limit-r.at)]
		if feed := bytes.IndexByte(data, '\n'); feed >= 0 {
			line.Text = append(line.Text, data[:feed]...)
			r.at += int64(feed) + 1
			line.Size = r.at - line.Offset
			return line.cut(), nil
		}
		line.Text = append(line.Text, data...)
		r.at += int64(len(data))
		if len(line.Text) > longLine {
			if next := min(r.index.nextFeed(r.at), limit); next > r.at {
				return r.long(line, next, limit)
			}
		}
	}
	line.Size = r.at - line.Offset
	line.Open = r.at == r.size
	return line.cut(), nil
}

// cut leaves the ends of a long line.
func (l Line) cut() Line {
	if len(l.Text) > longLine {
		l.Text, l.Tail = l.Text[:lineEnd:lineEnd], bytes.Clone(l.Text[len(l.Text)-lineEnd:])
	}
	return l
}

// long goes on with a line whose end is not before next, without reading all that is between.
func (r *lineReader) long(line Line, next, limit int64) (Line, error) {
	var tail []byte
	if begin := next - lineEnd; begin > r.at {
		r.at = begin
	} else {
		tail = bytes.Clone(line.Text[len(line.Text)-lineEnd:])
	}
	line.Text = line.Text[:lineEnd:lineEnd]
	for r.at < limit {
		data, err := r.fill()
		if err != nil {
			return line, err
		}
		data = data[:min(int64(len(data)), limit-r.at)]
		feed := bytes.IndexByte(data, '\n')
		if feed >= 0 {
			data = data[:feed]
		}
		tail = append(tail, data...)
		tail = tail[max(0, len(tail)-lineEnd):]
		r.at += int64(len(data))
		if feed >= 0 {
			r.at++
			line.Tail, line.Size = bytes.Clone(tail), r.at-line.Offset
			return line, nil
		}
	}
	line.Tail, line.Size, line.Open = bytes.Clone(tail), r.at-line.Offset, r.at == r.size
	return line, nil
}
