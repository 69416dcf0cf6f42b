package forgexec

import (
	"errors"
	"io"
	"os"
	"sync"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// errInterrupted: the stream broke before the source was complete; it comes anew
// with the next one.
var errInterrupted = errors.New("the connection broke")

// intake unpacks the source as one stream brings it.
type intake struct {
	chunks   *io.PipeWriter
	unpacker sync.WaitGroup
}

func (l *link) newIntake() *intake {
	r, w := io.Pipe()
	in := &intake{chunks: w}
	in.unpacker.Go(func() {
		result := l.unpacked(r)
		_ = r.Close() // nothing waits for a reader any more
		if result != nil && !l.hasSource.Swap(true) {
			l.source <- result
		}
	})
	return in
}

// take hands a chunk on; an unpacker that has ended wants none.
func (in *intake) take(chunk *schedulerv1.SourceChunk) {
	if reason := chunk.GetError(); reason != "" {
		_ = in.chunks.CloseWithError(unavailable(reason))
		return
	}
	_, _ = in.chunks.Write(chunk.GetData())
	if chunk.GetLast() {
		_ = in.chunks.Close()
	}
}

// interrupt ends an intake that is not complete, and waits for its end.
func (in *intake) interrupt() {
	if in == nil {
		return
	}
	_ = in.chunks.CloseWithError(errInterrupted)
	in.unpacker.Wait()
}

// unavailable is why the scheduler has no source, in its words.
type unavailable string

func (u unavailable) Error() string { return string(u) }

// unpacked unpacks into the workspace and returns the report that is due, nil if
// the stream broke.
func (l *link) unpacked(r io.Reader) *schedulerv1.Report {
	if err := l.Workspace.err; err != nil { // it may hold what is somebody's
		return endReport(&schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_NOT_RUNNABLE, Message: err.Error()})
	}
	entries, size, err := unpackInto(l.Workspace, r)
	if err == nil {
		return &schedulerv1.Report{Event: &schedulerv1.Report_SourceUnpacked{
			SourceUnpacked: &schedulerv1.SourceUnpacked{Entries: entries, Size: size},
		}}
	}
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return endReport(sourceEnded(err))
}

func unpackInto(w *workspace, r io.Reader) (entries, size int64, err error) {
	if err := w.empty(); err != nil {
		return 0, 0, err
	}
	root, err := os.OpenRoot(w.path)
	if err != nil {
		return 0, 0, err
	}
	defer root.Close() //nolint:errcheck // files in it were closed with care
	return unpack(root, r, sourceLimits())
}

// sourceEnded is how an attempt ends whose source was not unpacked.
func sourceEnded(err error) *schedulerv1.Ended {
	ended := &schedulerv1.Ended{Cause: schedulerv1.Ended_CAUSE_NO_SOURCE, Message: err.Error()}
	if _, ok := errors.AsType[refusal](err); ok {
		ended.Cause = schedulerv1.Ended_CAUSE_SOURCE_REFUSED
	}
	if reason, ok := errors.AsType[unavailable](err); ok {
		ended.Message = string(reason) // how far unpacking had come tells nobody anything
	}
	return ended
}

func endReport(ended *schedulerv1.Ended) *schedulerv1.Report {
	return &schedulerv1.Report{Event: &schedulerv1.Report_Ended{Ended: ended}}
}
