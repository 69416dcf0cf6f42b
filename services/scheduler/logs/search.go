package logs

import (
	"bytes"
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/find"
	"github.com/forge-ci/forge/services/kit/terminal"
)

const (
	// searchPart is how much of a line is looked at once; it bounds memory where there are no line feeds.
	searchPart = 1 << 20
	// searchAhead is how many pieces of a log are read while others are looked at.
	searchAhead = 8
	// sayEvery is how much is looked at, in bytes, between what is told.
	sayEvery = 16 << 20
	// searches bounds how many run at once; others wait.
	searches = 4
	// MaxHits is how many hits are listed on either side of a line.
	MaxHits = 5000
)

// Hits is what a search has found since it told last.
type Hits struct {
	// Lines are those of further hits, a line for each.
	Lines []int64
	// Before is that they lie before the line the search is around, as all will from
	// now on.
	Before bool
	// Count is how many hits there are so far, and BeforeCount how many of them before
	// that line. Searched is how many bytes were looked at.
	Count, BeforeCount, Searched int64
}

// Search looks for hits in what a log shows, from a line on to the end and then from
// the beginning to that line, and tells what it has found every now and then. Of
// those on either side it lists so many, the ones closest to the line.
func (l *Service) Search(ctx context.Context, buildID string, number int32, x *Index, finder *find.Finder, around int64, most int, tell func(Hits) error) error {
	select {
	case l.searching <- struct{}{}:
		defer func() { <-l.searching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return searchLog(ctx, l.Read(ctx, buildID, number), x, finder, around, most, tell)
}

func searchLog(ctx context.Context, read Page, x *Index, finder *find.Finder, around int64, most int, tell func(Hits) error) error {
	s := &search{index: x, finder: finder, most: most, tell: tell}
	size := x.Size()
	middle := int64(0)
	if around > 1 {
		middle = size
		for line, err := range Lines(read, x, around) {
			if fault.Is(err, fault.NotFound) && around > x.LineCount() {
				break
			}
			if err != nil {
				return err
			}
			middle = line.Offset
			break
		}
	}
	s.line = max(around, 1)
	if err := s.run(ctx, read, middle, size); err != nil {
		return err
	}
	s.hits.Before, s.line = true, 1
	if err := s.run(ctx, read, 0, middle); err != nil {
		return err
	}
	s.hits.Lines = s.hits.Lines[max(0, len(s.hits.Lines)-most):]
	return tell(s.hits)
}

// search looks at one part of a log after the other.
type search struct {
	index  *Index
	finder *find.Finder
	most   int
	tell   func(Hits) error

	line    int64  // that text begins with, or goes on with
	text    []byte // what was not looked at yet
	within  bool   // the beginning of the line was looked at
	overlap []byte // the end of that, as it is shown
	pending int64  // hits in that: what comes may draw over them

	hits    Hits
	listed  int
	told    int64 // Searched as it was told last
	visible []byte
	scratch find.Scratch
}

// run searches a part of the log.
func (s *search) run(ctx context.Context, read Page, begin, end int64) error {
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan LogChunk, searchAhead)
	group.Go(func() error {
		defer close(chunks)
		for chunk, err := range Pieces(read, begin, end) {
			if err != nil {
				return err
			}
			select {
			case chunks <- chunk:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	group.Go(func() error {
		for chunk := range chunks {
			if err := s.take(ctx, chunk); err != nil {
				return err
			}
		}
		s.endLine()
		return s.say()
	})
	return group.Wait()
}

// take looks at a chunk, but for the line that it ends in.
func (s *search) take(ctx context.Context, chunk LogChunk) error {
	s.hits.Searched += int64(len(chunk.Data))
	for data, at := chunk.Data, chunk.Position; len(data) > 0; {
		if s.index.begins(at) {
			s.endLine()
		}
		size := min(int64(len(data)), s.index.nextStep(at)-at)
		s.text = append(s.text, data[:size]...)
		data, at = data[size:], at+size
		if s.within {
			if feed := bytes.IndexByte(s.text, '\n'); feed >= 0 {
				s.part(feed)
				s.text = append(s.text[:0], s.text[1:]...)
				s.settle()
			}
		}
		if feed := bytes.LastIndexByte(s.text, '\n'); feed >= 0 {
			s.lines(s.text[:feed+1])
			s.text = append(s.text[:0], s.text[feed+1:]...)
		}
		for len(s.text) > searchPart {
			size := searchPart
			for size > 1 && s.text[size-1] == '\r' { // which belongs to what comes
				size--
			}
			s.part(size)
			s.within = true
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(s.hits.Lines) > 0 || s.hits.Searched-s.told >= sayEvery {
		return s.say()
	}
	return nil
}

// lines looks at whole lines.
func (s *search) lines(block []byte) {
	s.visible, _ = terminal.Visible(s.visible[:0], block)
	from := 0
	for begin := range s.finder.Each(s.visible, &s.scratch) {
		s.line += int64(bytes.Count(s.visible[from:begin], []byte{'\n'}))
		from = begin
		s.found(1)
	}
	s.line += int64(bytes.Count(s.visible[from:], []byte{'\n'}))
}

// part looks at so much of the text, which is of one line.
func (s *search) part(size int) {
	shown, drawnOver := terminal.Visible(append(s.visible[:0], s.overlap...), s.text[:size])
	s.visible = shown
	if drawnOver {
		shown, s.pending = shown[len(s.overlap):], 0
	}
	for range s.finder.Each(shown, &s.scratch) {
		s.pending++
	}
	s.overlap = append(s.overlap[:0], shown[max(0, len(shown)-s.finder.Overlap()):]...)
	s.text = append(s.text[:0], s.text[size:]...)
}

// endLine ends the line that the text is of, if there is one.
func (s *search) endLine() {
	if len(s.text) > 0 || s.within {
		s.part(len(s.text))
		s.settle()
	}
}

// settle counts what was found in a line that was looked at in parts.
func (s *search) settle() {
	s.found(s.pending)
	s.line++
	s.within, s.overlap, s.pending = false, s.overlap[:0], 0
}

// found counts hits in the line.
func (s *search) found(hits int64) {
	s.hits.Count += hits
	if s.hits.Before {
		s.hits.BeforeCount += hits
	}
	for range min(hits, int64(s.most)) {
		switch {
		case s.hits.Before: // only the last are listed
			s.hits.Lines = append(s.hits.Lines, s.line)
			if len(s.hits.Lines) > 2*s.most {
				s.hits.Lines = append(s.hits.Lines[:0], s.hits.Lines[len(s.hits.Lines)-s.most:]...)
			}
		case s.listed < s.most:
			s.hits.Lines = append(s.hits.Lines, s.line)
			s.listed++
		}
	}
}

// say tells what was found since it was told last.
func (s *search) say() error {
	s.told = s.hits.Searched
	told := s.hits
	if told.Before {
		told.Lines = nil // others may lie closer to the line
	} else {
		s.hits.Lines = nil
	}
	return s.tell(told)
}
