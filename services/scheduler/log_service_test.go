package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// stepped is a build of two steps that has failed, and the text of its log. The first
// ends in the middle of a line.
func stepped(r *rig, number int32, lines int) (id string, text []byte) {
	r.t.Helper()
	id = r.built(opened(number, fmt.Sprintf("sha%d", number)))
	u := r.attach(r.spec(id, 1).Runner.Token)
	sequence := int64(0)
	send := func(made *schedulerv1.Report) {
		sequence++
		made.Sequence = sequence
		made.Time = timestamppb.New(noon.Add(time.Duration(sequence) * time.Second))
		u.send(made)
	}
	write := func(step int32, part string) {
		text = append(text, part...)
		for len(part) > 0 {
			size := min(len(part), 60<<10)
			send(printed(0, step, part[:size]))
			part = part[size:]
		}
	}
	send(began(0, 1))
	var first, second strings.Builder
	for n := range lines {
		fmt.Fprintf(&first, "\x1b[3%dmthis is line %d of the first step\n", n%8, n+1)
		fmt.Fprintf(&second, "--- PASS: TestNumber%d (0.00s)\n", n)
	}
	write(1, first.String()+"no line feed")
	send(exited(0, 1, 0))
	send(began(0, 2))
	write(2, second.String()+"till_test.go:7: error: it is empty\nFAIL\n")
	send(exited(0, 2, 1))
	send(over(0, schedulerv1.Ended_CAUSE_DONE))
	u.acked(sequence)
	return id, text
}

// readLines is what ReadLog sends.
func readLines(r *rig, req *schedulerv1.ReadLogRequest) (all []*schedulerv1.LogLine, last *schedulerv1.ReadLogResponse) {
	r.t.Helper()
	stream, err := r.log.ReadLog(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, last
		}
		if err != nil {
			r.t.Fatal(err)
		}
		all, last = append(all, message.GetLines()...), message
	}
}

func outlineOf(r *rig, id string) *schedulerv1.Log {
	r.t.Helper()
	got, err := r.log.GetLog(r.t.Context(), &schedulerv1.GetLogRequest{BuildId: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return got.GetLog()
}

func searchLines(r *rig, req *schedulerv1.SearchLogRequest) (lines []int64, last *schedulerv1.SearchLogResponse) {
	r.t.Helper()
	stream, err := r.log.SearchLog(r.t.Context(), req)
	for err == nil {
		var message *schedulerv1.SearchLogResponse
		if message, err = stream.Recv(); err == nil {
			lines, last = append(lines, message.GetLines()...), message
		}
	}
	if !errors.Is(err, io.EOF) {
		r.t.Fatal(err)
	}
	return lines, last
}

// looksRight holds what a log shows of its lines against what was printed.
func looksRight(r *rig, id string, text []byte, count int) {
	r.t.Helper()
	n := int64(count)
	log := outlineOf(r, id)
	if log.GetLineCount() != 2*n+3 || log.GetSize() != int64(len(text)) || !log.GetOver() || log.GetAttempt() != 1 {
		r.t.Errorf("the log: %v", log)
	}
	steps := fmt.Sprintf("[number:1 first_line:1 line_count:%d number:2 first_line:%d line_count:%d]", n+1, n+2, n+2)
	if got := strings.ReplaceAll(fmt.Sprint(log.GetSteps()), "  ", " "); got != steps {
		r.t.Errorf("steps %s, want %s", got, steps)
	}
	if got := fmt.Sprint(log.GetMarks()[len(log.GetMarks())-1]); !strings.Contains(got, "LEVEL_ERROR") {
		r.t.Errorf("the last mark is %s", got)
	}
	for line, want := range map[int64]string{
		1: "\x1b[30mthis is line 1 of the first step", n: fmt.Sprintf("\x1b[3%dmthis is line %d of the first step", (n-1)%8, n),
		n + 1: "no line feed", n + 2: "--- PASS: TestNumber0 (0.00s)", 2*n + 3: "FAIL",
	} {
		found, last := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id, Line: line, PageSize: 1})
		if len(found) != 1 || string(found[0].GetText()) != want || found[0].GetNumber() != line || !last.GetOver() || last.GetLineCount() != 2*n+3 {
			r.t.Errorf("line %d: %v, want %q", line, found, want)
			continue
		}
		step, within := int32(1), line
		if line > n+1 {
			step, within = 2, line-n-1
		}
		if found[0].GetStep() != step || found[0].GetStepLine() != within {
			r.t.Errorf("line %d is %d of step %d, want %d of %d", line, found[0].GetStepLine(), found[0].GetStep(), within, step)
		}
		again, _ := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id, Offset: found[0].GetOffset(), PageSize: 1})
		if line > 1 && again[0].GetNumber() != line {
			r.t.Errorf("at %d: %v, want line %d", found[0].GetOffset(), again, line)
		}
		if style := string(last.GetStyle()); (line > n+1) != (style == "") && line > 1 {
			r.t.Errorf("line %d begins with %q", line, style)
		}
	}
	var whole bytes.Buffer
	all, _ := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id, PageSize: 1 << 30})
	for _, line := range all {
		whole.Write(line.GetText())
		if line.GetNumber() != n+1 {
			whole.WriteByte('\n')
		}
	}
	if !bytes.Equal(whole.Bytes(), text) {
		r.t.Errorf("all lines have %d bytes, want %d, or other ones", whole.Len(), len(text))
	}
	lines, last := searchLines(r, &schedulerv1.SearchLogRequest{BuildId: id, Query: `^this is LINE \d+ of`, Regex: true, AroundLine: n})
	if last.GetHitCount() != n || last.GetBeforeCount() != n-1 || !last.GetDone() || lines[0] != n {
		r.t.Errorf("%d hits, %v", len(lines), last)
	}
}

func TestLogIsReadByLinesWhereverItIs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const count = 20_000
		id, text := stepped(r, 1, count)
		looksRight(r, id, text, count)
		times := func() string {
			t.Helper()
			found, _ := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id, Line: count + 2, PageSize: 1})
			return found[0].GetTime().AsTime().String()
		}
		before := times()
		if !strings.HasPrefix(before, noon.Format("2006-01-02")) {
			t.Errorf("printed at %s", before)
		}
		r.moved()
		r.stop()
		r.start() // so that nothing is known any more
		looksRight(r, id, text, count)
		if after := times(); after != before {
			t.Errorf("printed at %s, and %s once it has moved", before, after)
		}
		if n := r.count(`SELECT count(*) FROM log_lines`); n > 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// What an older Forge has stored has no index, and is read through for one.
func TestLogWithoutAnIndexIsReadByLines(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const count = 5_000
		for n, spoil := range []string{
			`DELETE FROM log_lines`,
			`DELETE FROM log_lines WHERE position > 0 AND position < 400000`,
			`UPDATE log_lines SET pieces = 'x' WHERE position > 0`,
		} {
			id, text := stepped(r, int32(n+1), count)
			err := r.service.store.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.Exec(ctx, spoil) })
			if err != nil {
				t.Fatal(err)
			}
			r.stop()
			r.start()
			looksRight(r, id, text, count)
			r.moved()
			r.stop()
			r.start()
			looksRight(r, id, text, count)
		}
	})
}

func TestLogIsFollowedByLines(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		stream, err := r.log.ReadLog(t.Context(), &schedulerv1.ReadLogRequest{BuildId: id, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		u := r.attach(r.spec(id, 1).Runner.Token)
		var last string
		sees := func(want string) {
			t.Helper()
			for last != want {
				message, err := stream.Recv()
				if err != nil {
					t.Fatalf("%v; the last is %q, want %q", err, last, want)
				}
				for _, line := range message.GetLines() {
					last = fmt.Sprintf("%d %s %v", line.GetNumber(), line.GetText(), line.GetOpen())
				}
			}
		}
		u.send(began(1, 1), printed(2, 1, "first\nsec"))
		sees("2 sec true")
		u.send(printed(3, 1, "ond"))
		sees("2 second true")
		u.send(exited(4, 1, 0), began(5, 2), printed(6, 2, "third\n"))
		sees("3 third false")
		u.send(printed(7, 2, "fourth"), exited(8, 2, 1), over(9, schedulerv1.Ended_CAUSE_DONE))
		sees("4 fourth false")
		for err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("it ends with %v", err)
		}
		// Who was cut off goes on where the last line that had ended did.
		lines, _ := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id, Follow: true, Offset: int64(len("first\n"))})
		if len(lines) != 3 || string(lines[0].GetText()) != "second" {
			t.Errorf("from there on: %v", lines)
		}
	})
}

func TestLogOfWhatNeverPrintedHasNoLines(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.built(opened(1, "aaa"))
		if log := outlineOf(r, id); log.GetLineCount() != 0 || log.GetOver() {
			t.Errorf("%v", log)
		}
		if lines, _ := readLines(r, &schedulerv1.ReadLogRequest{BuildId: id}); len(lines) > 0 {
			t.Errorf("%v", lines)
		}
		if lines, last := searchLines(r, &schedulerv1.SearchLogRequest{BuildId: id, Query: "x"}); len(lines) > 0 || !last.GetDone() {
			t.Errorf("%v, %v", lines, last)
		}
	})
}

func TestLogIsNotReadPastItsEndNorForNonsense(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.prints(1, []byte("one\ntwo\n"))
		kittest.Eventually(t, patience, func() error {
			if log := outlineOf(r, id); !log.GetOver() {
				return errors.New("it goes on")
			}
			return nil
		})
		for name, c := range map[string]struct {
			req  *schedulerv1.ReadLogRequest
			want codes.Code
		}{
			"past the last line": {&schedulerv1.ReadLogRequest{BuildId: id, Line: 3}, codes.OutOfRange},
			"past the end":       {&schedulerv1.ReadLogRequest{BuildId: id, Offset: 9}, codes.OutOfRange},
			"before the first":   {&schedulerv1.ReadLogRequest{BuildId: id, Line: -1}, codes.InvalidArgument},
			"at two places":      {&schedulerv1.ReadLogRequest{BuildId: id, Line: 1, Offset: 1}, codes.InvalidArgument},
			"of nobody":          {&schedulerv1.ReadLogRequest{BuildId: "nobody"}, codes.NotFound},
			"of no attempt":      {&schedulerv1.ReadLogRequest{BuildId: id, Attempt: 7}, codes.NotFound},
			"past it, followed":  {&schedulerv1.ReadLogRequest{BuildId: id, Line: 9, Follow: true}, codes.OutOfRange},
		} {
			stream, err := r.log.ReadLog(t.Context(), c.req)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != c.want {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		for _, query := range []string{"", "(", strings.Repeat("x", 1001)} {
			stream, err := r.log.SearchLog(t.Context(), &schedulerv1.SearchLogRequest{BuildId: id, Query: query, Regex: true})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("a search for %.5q: %v", query, err)
			}
		}
	})
}
