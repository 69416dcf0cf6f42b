package logs

import (
	"slices"
	"sort"
	"sync"
	"time"
)

// Index knows where the lines of a log are. It may grow while it is read.
type Index struct {
	mu     sync.RWMutex
	pieces []piece
	starts []int64 // where each piece begins
	firsts []int64 // the line that the first byte of each is of
	steps  []int64 // where steps begin
	size   int64
	feeds  int64 // that end lines, with the steps that do
}

// add adds what stands at the end.
func (x *Index) add(next piece) {
	last := len(x.pieces) - 1
	if last >= 0 && !next.step && x.pieces[last].size+next.size <= pieceSize {
		x.pieces[last].join(next)
	} else {
		if next.step {
			x.steps = append(x.steps, x.size)
			next.style.reset = true
			if last >= 0 && x.pieces[last].open {
				x.feeds++ // it ends a line
			}
		}
		x.pieces, x.starts, x.firsts = append(x.pieces, next), append(x.starts, x.size), append(x.firsts, x.feeds+1)
	}
	x.size += next.size
	x.feeds += next.lines
}

// Size is how much of the log the index knows, in bytes.
func (x *Index) Size() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.size
}

// LineCount is how many lines there are, the last of which may not have ended.
func (x *Index) LineCount() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.lineCount()
}

func (x *Index) lineCount() int64 {
	if n := len(x.pieces); n > 0 && x.pieces[n-1].open {
		return x.feeds + 1
	}
	return x.feeds
}

// FirstLine is the first line of what stands at a position where a step begins.
func (x *Index) FirstLine(position int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	at := sort.Search(len(x.starts), func(n int) bool { return x.starts[n] >= position })
	if at == len(x.starts) {
		return x.lineCount() + 1
	}
	return x.firsts[at]
}

// place is where to begin reading so as to come to a line.
type place struct {
	offset int64
	line   int64 // that the byte there is of
	begun  bool  // it has begun before
	style  style
}

// before is where to begin so as to come to the beginning of a line; false past the end.
func (x *Index) before(line int64) (place, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if line < 1 || line > x.lineCount() {
		return place{}, false
	}
	at := sort.Search(len(x.pieces), func(n int) bool { return x.firsts[n]+x.pieces[n].lines >= line })
	at = min(at, len(x.pieces)-1)
	if p := x.pieces[at]; x.firsts[at]+p.lines == line && !p.open && at+1 < len(x.pieces) {
		at++ // where the line begins
	}
	return x.place(at), true
}

// beforeOffset is where to begin so as to come to the first line that begins at an offset or after it; false past the end.
func (x *Index) beforeOffset(offset int64) (place, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if offset < 0 || offset >= x.size {
		return place{}, false
	}
	return x.place(x.at(offset)), true
}

// at is the piece that a byte is of.
func (x *Index) at(offset int64) int {
	return sort.Search(len(x.starts), func(n int) bool { return x.starts[n] > offset }) - 1
}

func (x *Index) place(at int) place {
	p := place{offset: x.starts[at], line: x.firsts[at]}
	p.begun = at > 0 && x.pieces[at-1].open && !x.pieces[at].step
	if x.pieces[at].step {
		return p // which begins without colours
	}
	begin := at
	for begin > 0 && !x.pieces[begin-1].style.reset {
		begin--
	}
	for n := max(begin-1, 0); n < at; n++ {
		p.style = p.style.then(x.pieces[n].style)
	}
	return p
}

// nextStep is where a step begins next after an offset, or else the end of what is known.
func (x *Index) nextStep(offset int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if at, _ := slices.BinarySearch(x.steps, offset+1); at < len(x.steps) {
		return x.steps[at]
	}
	return x.size
}

// begins reports whether a step begins at an offset.
func (x *Index) begins(offset int64) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, found := slices.BinarySearch(x.steps, offset)
	return found
}

// nextFeed is where to begin to look for the first line feed at an offset or after it: in the piece that holds it.
func (x *Index) nextFeed(offset int64) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	first := max(x.at(offset), 0)
	for n := first; n < len(x.pieces); n++ {
		switch {
		case n > first && x.pieces[n].step: // which ends a line, too
			return x.starts[n]
		case x.pieces[n].lines > 0:
			return max(offset, x.starts[n])
		}
	}
	return x.size
}

// timeOf is about when the byte at an offset was printed; zero where nobody knows.
func (x *Index) timeOf(offset int64) time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for n := x.at(offset); n >= 0; n-- {
		times := x.pieces[n].times
		at := sort.Search(len(times), func(i int) bool { return x.starts[n]+times[i].at > offset })
		if at > 0 {
			return time.UnixMilli(times[at-1].millis)
		}
		if x.pieces[n].step {
			break
		}
	}
	return time.Time{}
}

// Mark is a line that tells of something wrong.
type Mark struct {
	Line  int64
	Level Level
}

// Marks are lines that tell of something wrong, in order, at most so many: of those that lie close together the worst stands
// for the others.
func (x *Index) Marks(most int) []Mark {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []Mark
	for n, p := range x.pieces {
		for _, m := range p.marks {
			all = append(all, Mark{x.firsts[n] + m.after, m.level})
		}
	}
	slices.SortFunc(all, func(a, b Mark) int { return int(a.Line - b.Line) })
	if len(all) <= most {
		return all
	}
	// Each part of the log has one.
	part := max(1, x.lineCount()/int64(most)+1)
	kept := all[:0]
	for _, m := range all {
		last := len(kept) - 1
		switch {
		case last < 0 || kept[last].Line/part != m.Line/part:
			kept = append(kept, m)
		case m.Level > kept[last].Level:
			kept[last] = m
		}
	}
	return kept
}

// all are the pieces, for keeping.
func (x *Index) all() []piece {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.pieces)
}
