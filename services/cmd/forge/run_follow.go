package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

// follow shows a build while it runs.
type follow struct {
	conn        grpc.ClientConnInterface
	out, errors io.Writer
}

// verdict shows a build to its end, and is an error where GitHub would not show success.
// Once stop ends the build is cancelled; once now ends nobody waits for it.
func (f follow) verdict(ctx, stop, now context.Context, id string) error {
	client := schedulerv1.NewBuildServiceClient(f.conn)
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer context.AfterFunc(now, leave)()
	defer context.AfterFunc(stop, func() {
		if ctx.Err() != nil {
			return
		}
		fmt.Fprintln(f.errors, "forge run: stopping; once more ends it at once") //nolint:errcheck // nobody is there to read it
		_, _ = client.CancelBuild(ctx, &schedulerv1.CancelBuildRequest{BuildId: id, Message: "Stopped"})
	})()
	last, err := f.watch(ctx, client, id)
	if now.Err() != nil {
		return codedError{exitInterrupted, errors.New("ended at once")}
	}
	if err != nil {
		return err
	}
	f.print(ctx, last)
	if stop.Err() != nil {
		return codedError{exitInterrupted, errors.New("build " + stateLine(last))}
	}
	if !passes(last) {
		return errors.New("build " + stateLine(last))
	}
	return nil
}

// watch returns the build once it has ended, and each log was printed.
func (f follow) watch(ctx context.Context, client schedulerv1.BuildServiceClient, id string) (last *schedulerv1.Build, err error) {
	stream, err := client.WatchBuild(ctx, &schedulerv1.WatchBuildRequest{BuildId: id})
	if err != nil {
		return nil, err
	}
	logs := logPrinter{client: client, out: f.out, seen: map[string]int32{}}
	waits := ""
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, logs.printing.Wait()
		}
		if err != nil {
			return nil, errors.Join(err, logs.printing.Wait())
		}
		last = answer.GetBuild()
		if now := waitingLine(last); now != waits {
			if waits = now; now != "" {
				fmt.Fprintln(f.errors, "forge run: "+now) //nolint:errcheck // nobody is there to read it
			}
		}
		if len(last.GetJobs()) == 0 {
			logs.follow(ctx, last.GetId(), last.GetAttempt(), "")
		}
		for _, job := range last.GetJobs() {
			prefix := ""
			if len(last.GetJobs()) > 1 {
				prefix = job.GetTitle() + " | "
			}
			logs.follow(ctx, job.GetId(), job.GetAttempt(), prefix)
		}
	}
}

// waitingLine is what a build waits for; empty where it is nothing.
func waitingLine(b *schedulerv1.Build) string {
	if why := wording.Because(b); why != "" && b.GetState() < schedulerv1.Build_STATE_RUNNING {
		return wording.Value(b.GetState()) + ": " + why
	}
	return ""
}

// logPrinter prints logs side by side.
type logPrinter struct {
	client   schedulerv1.BuildServiceClient
	printing errgroup.Group
	seen     map[string]int32 // attempts that are printed, by the ids of their jobs

	mu  sync.Mutex
	out io.Writer
}

// follow prints the attempts of a job that are not printed yet.
func (p *logPrinter) follow(ctx context.Context, id string, attempt int32, prefix string) {
	for p.seen[id] < attempt {
		p.seen[id]++
		req := &schedulerv1.WatchLogRequest{BuildId: id, Attempt: p.seen[id], Follow: true}
		p.printing.Go(func() error {
			lines := &prefixed{to: p, prefix: prefix}
			show := func(part *schedulerv1.WatchLogResponse) error {
				return lines.print(part.GetData())
			}
			return errors.Join(printLog(ctx, show, p.client, req), lines.flush())
		})
	}
}

// prefixed prints whole lines, each with a prefix; without one it prints what comes.
type prefixed struct {
	to     *logPrinter
	prefix string
	begun  []byte // a line whose end has not come
}

func (l *prefixed) print(data []byte) error {
	if l.prefix == "" {
		return l.write(data)
	}
	l.begun = append(l.begun, data...)
	end := bytes.LastIndexByte(l.begun, '\n') + 1
	if end == 0 {
		return nil
	}
	var all []byte
	for line := range bytes.Lines(l.begun[:end]) {
		all = append(append(all, l.prefix...), line...)
	}
	l.begun = append([]byte{}, l.begun[end:]...)
	return l.write(all)
}

func (l *prefixed) write(data []byte) error {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	_, err := l.to.out.Write(data)
	return err
}

// flush ends a line that has no end.
func (l *prefixed) flush() error {
	if len(l.begun) == 0 {
		return nil
	}
	return l.print([]byte("\n"))
}

// print says how each job ended, and which tests failed.
func (f follow) print(ctx context.Context, b *schedulerv1.Build) {
	var out strings.Builder
	out.WriteString("\n")
	if len(b.GetJobs()) > 0 {
		rows := [][]string{{"JOB", "STATE", "TOOK", "WHY"}}
		for _, job := range b.GetJobs() {
			state, _, _ := strings.Cut(jobLine(&schedulerv1.Job{State: job.GetState()}), ":")
			why := job.GetMessage()
			if job.GetMayFail() && job.GetState() != schedulerv1.Build_STATE_PASSED {
				why = strings.TrimPrefix(why+"; it may", "; ")
			}
			rows = append(rows, []string{job.GetTitle(), state, took(job.GetStartTime(), job.GetEndTime()), why})
		}
		printTable(&out, rows)
	}
	failed, err := schedulerv1.NewTestServiceClient(f.conn).ListTests(ctx, &schedulerv1.ListTestsRequest{
		BuildId: b.GetId(), States: []schedulerv1.Test_State{schedulerv1.Test_STATE_FAILED, schedulerv1.Test_STATE_ERRORED},
	})
	if err == nil && len(failed.GetTests()) > 0 {
		printFailed(&out, failed)
	}
	fmt.Fprintf(&out, "%s in %s\n", stateLine(b), took(b.GetCreateTime(), b.GetEndTime()))
	_, _ = io.WriteString(f.out, out.String())
}

func took(from, to *timestamppb.Timestamp) string {
	if from == nil || to == nil {
		return "-"
	}
	return to.AsTime().Sub(from.AsTime()).Round(time.Second / 10).String()
}

// passes reports whether GitHub would show success: it passed, or there was nothing to do.
func passes(b *schedulerv1.Build) bool {
	switch b.GetReason() {
	case schedulerv1.Build_REASON_NO_MATCHING_PATHS, schedulerv1.Build_REASON_SKIP_ASKED, schedulerv1.Build_REASON_CONDITION:
		return true
	default:
		return b.GetState() == schedulerv1.Build_STATE_PASSED
	}
}
