package forgexec

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// What a step may print in any case, however much those before it printed.
const (
	leastHead = 4 << 10
	leastTail = 8 << 10
)

// budget is what the log of an attempt may still hold.
type budget struct {
	limit int64 // 0: none
	left  int64
}

// step gives a step its share. What the last one gets is all; others leave a
// part of it to those that follow.
func (b *budget) step(last bool, emit func([]byte)) *share {
	s := &share{budget: b, emit: emit, head: math.MaxInt64}
	switch {
	case b.limit == 0:
	case last:
		s.head, s.tail.most = b.left-b.left/4, int(b.left/4)
	default:
		s.head, s.tail.most = b.left/2, int(b.left/8)
	}
	s.head, s.tail.most = max(s.head, leastHead), max(s.tail.most, leastTail)
	return s
}

// share hands on the beginning of what a step prints as it comes, and keeps the
// end of the rest until the step has ended.
type share struct {
	budget *budget
	emit   func([]byte)
	head   int64 // to be handed on as it comes
	tail   ring
	broken bool // the last line handed on has no end
}

// write takes the data over.
func (s *share) write(data []byte) {
	if now := min(int64(len(data)), s.head); now > 0 {
		s.head -= now
		s.hand(data[:now])
		data = data[now:]
	}
	if len(data) == 0 {
		return
	}
	if s.tail.total == 0 {
		s.sayf("forge: the log is limited to %d bytes; of what this step prints from here on, the last %d bytes are shown when it ends",
			s.budget.limit, s.tail.most)
	}
	s.tail.write(data)
}

// end hands on what was kept.
func (s *share) end() {
	kept := s.tail.parts()
	left := s.tail.total - int64(len(s.tail.held))
	if left > 0 { // go on with a whole line, if one is near
		const near = 4 << 10
		first := kept[0][:min(len(kept[0]), near)]
		line := bytes.IndexByte(first, '\n') + 1
		kept[0] = kept[0][line:]
		s.sayf("forge: %d bytes left out here", left+int64(line))
	}
	for _, part := range kept {
		for data := range slices.Chunk(part, chunk) {
			s.hand(data)
		}
	}
}

func (s *share) hand(data []byte) {
	s.budget.left = max(0, s.budget.left-int64(len(data)))
	s.broken = data[len(data)-1] != '\n'
	s.emit(data)
}

// sayf puts a line of ours between what the step prints.
func (s *share) sayf(format string, args ...any) {
	text := fmt.Appendf(nil, format+"\n", args...)
	if s.broken {
		text = append([]byte{'\n'}, text...)
	}
	s.broken = false
	s.emit(text)
}

// ring keeps the end of what is written to it.
type ring struct {
	most  int
	held  []byte
	start int   // of the oldest, once all of held is in use
	total int64 // written
}

func (r *ring) write(data []byte) {
	r.total += int64(len(data))
	data = data[max(0, len(data)-r.most):]
	room := min(len(data), r.most-len(r.held))
	r.held = append(r.held, data[:room]...)
	for data = data[room:]; len(data) > 0; {
		n := copy(r.held[r.start:], data)
		r.start, data = (r.start+n)%r.most, data[n:]
	}
}

// parts are what is held, the oldest first.
func (r *ring) parts() [2][]byte { return [2][]byte{r.held[r.start:], r.held[:r.start]} }
