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
	file := l.logFile(r.Context(), b.GetId(), log.GetLog().GetAttempt(), log.GetLog().GetSize())
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

// logFile is the log of an attempt, as long as it is by now.
func (l *logs) logFile(ctx context.Context, build string, attempt int32, size int64) *received {
	unread := func(err error) error { return fmt.Errorf("read log of build %s: %w", build, err) }
	return &received{size: size, start: func(at int64) (func() ([]byte, error), context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := l.builds.WatchLog(ctx, &schedulerv1.WatchLogRequest{BuildId: build, Attempt: attempt, Offset: at})
		if err != nil {
			cancel()
			return nil, nil, unread(err)
		}
		return func() ([]byte, error) {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				err = fault.New(fault.Unavailable, "it ends too early")
			}
			if err != nil {
				return nil, unread(err)
			}
			return message.GetData(), nil
		}, cancel, nil
	}}
}
