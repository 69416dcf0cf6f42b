package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// print sends ten lines every second, until ctx ends and all are acknowledged. It
// returns what it has sent.
func (r *attachedRunner) print(ctx context.Context) (sent []byte, err error) {
	send := func(sequence int64, report *schedulerv1.Report) error {
		report.Sequence, report.Time = sequence, timestamppb.Now()
		return r.stream.Send(&schedulerv1.AttachRequest{Message: &schedulerv1.AttachRequest_Report{Report: report}})
	}
	acknowledged := make(chan int64, 1024)
	gone := make(chan error, 1)
	go func() {
		for {
			message, err := r.stream.Recv()
			if err != nil {
				gone <- err
				return
			}
			if ack := message.GetAck(); ack != nil {
				acknowledged <- ack.GetSequence()
			}
		}
	}()
	sequence := int64(1)
	if err := send(sequence, &schedulerv1.Report{Event: &schedulerv1.Report_StepStarted{StepStarted: &schedulerv1.StepStarted{Number: 1}}}); err != nil {
		return nil, err
	}
	next := time.NewTimer(rand.N(time.Second))
	defer next.Stop()
	var stored int64
	for ctx.Err() == nil || stored < sequence {
		select {
		case err := <-gone:
			return sent, err
		case stored = <-acknowledged:
		case <-next.C:
			next.Reset(time.Second)
			if ctx.Err() != nil {
				continue
			}
			var lines []byte
			for n := range 10 {
				lines = fmt.Appendf(lines, "%s says line %d of report %d, and it is about as long as lines of a test are\n", r.build, n, sequence)
			}
			sequence++
			sent = append(sent, lines...)
			if err := send(sequence, &schedulerv1.Report{Event: &schedulerv1.Report_Output{Output: &schedulerv1.Output{Number: 1, Data: lines}}}); err != nil {
				return sent, err
			}
		}
	}
	return sent, errors.Join(r.stream.CloseSend())
}

// firstCommands is how long it takes from pull requests being opened to their first
// commands, in the middle.
func (w crowd) firstCommands(b *testing.B, shas map[string]string) time.Duration {
	b.Helper()
	var all []time.Duration
	for branch, sha := range shas {
		begin := time.Now()
		w.open(b, branch)
		w.shows(b, sha, "forge/test", "success")
		said, err := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler")).GetBuild(b.Context(), &schedulerv1.GetBuildRequest{BuildId: w.builds(b, sha)[0].GetId()})
		must(b, err)
		all = append(all, said.GetBuild().GetSteps()[0].GetStartTime().AsTime().Sub(begin))
		must(b, w.sim.WaitDeliveries(b.Context()))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkPrintingRunners is how long the first command of a new build takes while 500
// runners print ten lines a second each, in the time without them: at most twice. No
// line is lost.
func BenchmarkPrintingRunners(b *testing.B) {
	const count, samples = 500, 15
	w := crowd{newWorld(b, one())}
	shas := w.heldPulls(b, 2*samples) // before Forge listens
	runners, address, trust := w.overTLS(b, count)
	quiet, busy := map[string]string{}, map[string]string{}
	for branch, sha := range shas {
		if len(quiet) < samples {
			quiet[branch] = sha
		} else {
			busy[branch] = sha
		}
	}
	for range b.N {
		alone := w.firstCommands(b, quiet)
		sent := make(chan *attachedRunner, count)
		leave := attachAll(b, runners, address, trust, func(ctx context.Context, r *attachedRunner) {
			var err error
			if r.sent, err = r.print(ctx); err != nil {
				b.Errorf("%s: %v", r.build, err)
			}
			sent <- r
		})
		before, _ := w.process("scheduler").used(b)
		begin := time.Now()
		beside := w.firstCommands(b, busy)
		watched := time.Since(begin)
		after, _ := w.process("scheduler").used(b)
		leave()
		close(sent)
		bytesSent := 0
		for r := range sent {
			bytesSent += len(r.sent)
			if kept := w.logOf(b, r.build); !bytes.Equal(kept, r.sent) {
				b.Errorf("%s has printed %d bytes, and its log holds %d, or other ones", r.build, len(r.sent), len(kept))
			}
		}
		b.ReportMetric(float64(alone.Microseconds())/1000, "ms-without")
		b.ReportMetric(float64(beside.Microseconds())/1000, "ms-beside")
		b.ReportMetric(float64(beside)/float64(alone), "ratio")
		b.ReportMetric((after-before).Seconds()/watched.Seconds(), "cores")
		b.ReportMetric(float64(bytesSent)/1e6, "MB-printed")
	}
	b.ReportMetric(0, "ns/op")
}

// logOf is the log of a build so far.
func (w crowd) logOf(b *testing.B, id string) (text []byte) {
	b.Helper()
	stream, err := schedulerv1.NewBuildServiceClient(w.dial(b, "scheduler")).WatchLog(b.Context(), &schedulerv1.WatchLogRequest{BuildId: id})
	must(b, err)
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text
		}
		must(b, err)
		text = append(text, part.GetData()...)
	}
}
