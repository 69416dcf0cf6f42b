package forgexec

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// errInterrupted: the source comes anew, or not at all.
var errInterrupted = errors.New("the connection broke")

// intake unpacks the source as streams bring it. One that breaks leaves it waiting
// for the rest.
type intake struct {
	chunks   *io.PipeWriter
	unpacker sync.WaitGroup
	whole    bool // nothing more comes
	bytes    int64
	sum      hash.Hash // of these
}

func (l *link) newIntake() *intake {
	r, w := io.Pipe()
	in := &intake{chunks: w, sum: sha256.New()}
	in.unpacker.Go(func() {
		result := l.unpacked(r)
		_ = r.Close() // nothing waits for a reader any more
		if result != nil && !l.hasSource.Swap(true) {
			l.source <- result
		}
	})
	return in
}

// begun is what the scheduler is told of the bytes that were taken, nil for none.
func (in *intake) begun() *schedulerv1.SourceBegun {
	if in == nil || in.bytes == 0 {
		return nil
	}
	return &schedulerv1.SourceBegun{Bytes: in.bytes, Sha256: in.sum.Sum(nil)}
}

// takeSource takes a chunk. The first of a stream goes on with the intake that is
// there, or begins anew: a scheduler that knows nothing of the former counts from 0.
func (l *link) takeSource(chunk *schedulerv1.SourceChunk, first bool) error {
	if l.hasSource.Load() {
		return nil
	}
	if first && (l.intake == nil || l.intake.bytes > 0 && chunk.GetOffset() == 0) {
		l.intake.interrupt()
		l.intake = l.newIntake()
	}
	if offset := chunk.GetOffset(); offset != 0 && offset != l.intake.bytes {
		l.intake.interrupt()
		err := fmt.Errorf("the scheduler goes on with the source at byte %d, and the runner is at %d", offset, l.intake.bytes)
		l.intake = nil
		return err
	}
	l.intake.take(chunk)
	return nil
}

// take hands a chunk on; an unpacker that has ended wants none.
func (in *intake) take(chunk *schedulerv1.SourceChunk) {
	if reason := chunk.GetError(); reason != "" {
		in.whole = true
		_ = in.chunks.CloseWithError(unavailable(reason))
		return
	}
	n, _ := in.chunks.Write(chunk.GetData())
	in.bytes += int64(n)
	_, _ = in.sum.Write(chunk.GetData()[:n])
	if chunk.GetLast() {
		in.whole = true
		_ = in.chunks.Close()
	}
}

// settle waits for the end of an intake that has all there is.
func (in *intake) settle() {
	if in != nil && in.whole {
		in.unpacker.Wait()
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
// it was interrupted.
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
