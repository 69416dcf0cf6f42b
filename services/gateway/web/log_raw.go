package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

// raw is the whole log as the commands wrote it, or the range of it that is asked
// for; with ?follow it goes on until the build has ended.
func (l *logs) raw(w http.ResponseWriter, r *http.Request) {
	resp, err := l.builds.GetBuild(r.Context(), &schedulerv1.GetBuildRequest{BuildId: r.PathValue("id")})
	if err != nil {
		l.showError(w, r, "GetBuild", err)
		return
	}
	b := resp.GetBuild()
	if b.GetJobCount() > 0 { // each job has a log of its own, which that page leads to
		http.Redirect(w, r, address(l.deps.Base+"/builds", b.GetId()), http.StatusSeeOther)
		return
	}
	if r.URL.Query().Has("follow") {
		secure(w, "text/plain; charset=utf-8")
		if err := l.follow(r.Context(), flushing{w}, b); err != nil && r.Context().Err() == nil {
			l.deps.Log.WarnContext(r.Context(), "WatchLog failed; the log breaks off", "build", b.GetId(), "error", err)
			_, _ = io.WriteString(w, "\n[the log broke off here]\n")
		}
		return
	}
	log, err := l.lines.GetLog(r.Context(), &schedulerv1.GetLogRequest{BuildId: b.GetId(), Attempt: b.GetAttempt()})
	if err != nil {
		l.showError(w, r, "GetLog", err)
		return
	}
	secure(w, "text/plain; charset=utf-8")
	if r.URL.Query().Has("download") {
		w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%d.log"`, b.GetId(), log.GetLog().GetAttempt()))
	}
	// What was printed never changes: as long as it has the same size, it is the same.
	w.Header().Set("ETag", fmt.Sprintf(`"%s-%d-%d"`, b.GetId(), log.GetLog().GetAttempt(), log.GetLog().GetSize()))
	var changed time.Time
	if log.GetLog().GetOver() && b.GetEndTime() != nil {
		changed = b.GetEndTime().AsTime()
	}
	file := &logFile{ctx: r.Context(), builds: l.builds, build: b.GetId(), attempt: log.GetLog().GetAttempt(), size: log.GetLog().GetSize()}
	defer file.close()
	http.ServeContent(w, r, "", changed, file)
	if file.err != nil && r.Context().Err() == nil {
		l.deps.Log.WarnContext(r.Context(), "WatchLog failed; the log breaks off", "build", b.GetId(), "error", file.err)
	}
}

// follow writes the log of a build's latest attempt until it has ended.
func (l *logs) follow(ctx context.Context, w io.Writer, b *schedulerv1.Build) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where writing fails
	stream, err := l.builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: b.GetId(), Attempt: b.GetAttempt(), Follow: true})
	for err == nil {
		var resp *schedulerv1.WatchLogResponse
		if resp, err = stream.Recv(); err == nil {
			_, err = w.Write(resp.GetData())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("follow log of build %s: %w", b.GetId(), err)
}

// logFile is a log as http.ServeContent reads it: nothing of it is held but one
// message.
type logFile struct {
	ctx     context.Context //nolint:containedctx // of the request that it is read for
	builds  schedulerv1.BuildServiceClient
	build   string
	attempt int32
	size    int64

	wanted int64 // where the next Read reads
	stream schedulerv1.BuildService_WatchLogClient
	cancel context.CancelFunc
	at     int64  // where rest begins
	rest   []byte // of the last message
	err    error  // why it cannot be read
}

func (f *logFile) close() {
	if f.stream != nil {
		f.cancel()
		f.stream = nil
	}
}

// Seek says where the next Read begins.
func (f *logFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.wanted
	case io.SeekEnd:
		offset += f.size
	}
	f.wanted = offset
	return offset, nil
}

// Read reads on where the one before ended, or where Seek has said.
func (f *logFile) Read(p []byte) (int, error) {
	if f.wanted >= f.size {
		return 0, io.EOF
	}
	if f.err == nil {
		f.err = f.fill()
	}
	if f.err != nil {
		return 0, f.err
	}
	n := copy(p, f.rest[:min(int64(len(f.rest)), f.size-f.wanted)])
	f.rest = f.rest[n:]
	f.at += int64(n)
	f.wanted = f.at
	return n, nil
}

// fill has something in rest.
func (f *logFile) fill() error {
	if f.stream == nil || f.at != f.wanted {
		f.close()
		ctx, cancel := context.WithCancel(f.ctx)
		stream, err := f.builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: f.build, Attempt: f.attempt, Offset: f.wanted})
		if err != nil {
			cancel()
			return fmt.Errorf("read log of build %s: %w", f.build, err)
		}
		f.stream, f.cancel, f.at, f.rest = stream, cancel, f.wanted, nil
	}
	for len(f.rest) == 0 {
		message, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Unavailable, "it ends too early")
		}
		if err != nil {
			return fmt.Errorf("read log of build %s: %w", f.build, err)
		}
		f.rest = message.GetData()
	}
	return nil
}
