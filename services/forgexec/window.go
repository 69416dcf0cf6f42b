package forgexec

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// maxKept is how many bytes of output are kept for a scheduler that is away.
	maxKept = 8 << 20
	// maxUnderWay is how many are on their way to one that is there. More would make
	// nothing faster, and whoever follows the log would see each line so much later.
	maxUnderWay = 1 << 20
)

// window numbers the reports and keeps each until it is acknowledged.
type window struct {
	more chan struct{} // has an item when there may be something to send

	mu     sync.Mutex
	room   *sync.Cond
	kept   []*schedulerv1.Report
	bytes  int   // of what is large in kept
	most   int   // of bytes
	stored int64 // all up to this one are acknowledged
	ended  bool  // the last report was added
	closed bool
}

func newWindow() *window {
	w := &window{more: make(chan struct{}, 1), most: maxKept}
	w.room = sync.NewCond(&w.mu)
	return w
}

// bulk is how many bytes count of a report: of output, and of what tests have said.
func bulk(report *schedulerv1.Report) int {
	if tests := report.GetTests(); tests != nil {
		return proto.Size(tests)
	}
	return len(report.GetOutput().GetData())
}

// add numbers the report and keeps it. While too much waits of what is large, more of
// it blocks; anything else is small and few.
func (w *window) add(report *schedulerv1.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := bulk(report)
	for size > 0 && w.bytes+size > w.most && !w.closed {
		w.room.Wait()
	}
	if w.closed {
		return
	}
	report.Time = timestamppb.Now()
	report.Sequence = w.stored + int64(len(w.kept)) + 1
	w.kept = append(w.kept, report)
	w.bytes += size
	w.ended = w.ended || report.GetEnded() != nil
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// bound sets how many bytes of output are kept from now on, before more blocks.
func (w *window) bound(most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most = most
	w.room.Broadcast()
}

// ack drops what is stored. It reports whether nothing is left to be said.
func (w *window) ack(sequence int64) (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	acked := sequence - w.stored
	if acked < 0 || acked > int64(len(w.kept)) {
		return false, fmt.Errorf("the scheduler says it has stored report %d, but the reports it may have are %d to %d",
			sequence, w.stored, w.stored+int64(len(w.kept)))
	}
	for _, report := range w.kept[:acked] {
		w.bytes -= bulk(report)
	}
	w.kept = slices.Delete(w.kept, 0, int(acked))
	w.stored = sequence
	w.room.Broadcast()
	return w.ended && len(w.kept) == 0, nil
}

// after returns what comes after this sequence, some of it at least.
func (w *window) after(sequence int64) []*schedulerv1.Report {
	const most = 64
	w.mu.Lock()
	defer w.mu.Unlock()
	from := max(sequence-w.stored, 0)
	from = min(from, int64(len(w.kept)))
	return slices.Clone(w.kept[from:min(from+most, int64(len(w.kept)))])
}

// close drops what is added from now on: nobody will hear it.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Broadcast()
}
