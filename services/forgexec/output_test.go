package forgexec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOutputArrivesByteForByte(t *testing.T) {
	for _, c := range []struct{ name, run string }{
		{"2 MB of lines", `i=0; while [ $i -lt 20000 ]; do echo "line $i of a log that is quite long, as logs are, and goes on and on and on to some 100 bytes"; i=$((i+1)); done | tee "$HOME/want"`},
		{"an endless line", `head -c 2000000 /dev/zero | tr '\0' x | tee "$HOME/want"`},
		{"NULs", `head -c 300000 /dev/zero | tee "$HOME/want"`},
		{"invalid UTF-8", `printf '\377\376\300\200 \033[31mred\033[0m \r\n \355\240\200' | tee "$HOME/want"`},
		{"noise", `head -c 1000000 /dev/urandom | tee "$HOME/want"`},
		{"exactly a chunk", `head -c 31744 /dev/urandom | tee "$HOME/want"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScheduler(t, c.run)
			home := t.TempDir()
			s.forgexec(t, "HOME="+home).wantExit(t, exitReported)
			want, err := os.ReadFile(home + "/want")
			if err != nil || len(want) == 0 {
				t.Fatalf("nothing was printed: %v", err)
			}
			if got := s.output(); !bytes.Equal(got, want) {
				t.Errorf("%d bytes arrived of %d, or other ones", len(got), len(want))
			}
		})
	}
}

func TestAPartOfALineIsSeenWhileTheStepRuns(t *testing.T) {
	s := newScheduler(t, "printf 'password? '; sleep 1000")
	f := s.forgexec(t)
	s.awaitOutput(t, "password? ")
	s.cancelled <- "seen"
	f.wantExit(t, exitReported)
}

func TestSmallWritesAreBatched(t *testing.T) {
	s := newScheduler(t, "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done")
	s.forgexec(t).wantExit(t, exitReported)
	if len(s.reports) > 500 {
		t.Errorf("%d reports for 5000 lines", len(s.reports))
	}
}

// A pump on a pipe of its own. Each emitted chunk waits for gate, if there is one.
func startPump(t *testing.T, gate <-chan struct{}) (p *pump, w *os.File, result func() (string, bool)) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	var got strings.Builder
	p = &pump{r: r, emit: func(data []byte) {
		if gate != nil {
			<-gate
		}
		got.Write(data)
	}}
	eof := make(chan bool, 1)
	go func() { eof <- p.run() }()
	return p, w, func() (string, bool) {
		end := <-eof
		return got.String(), end
	}
}

func TestPumpDoesNotWaitForThoseWhoHoldThePipe(t *testing.T) {
	p, w, result := startPump(t, nil)
	fmt.Fprint(w, "said")
	p.finish(time.Now().Add(50 * time.Millisecond))
	if got, eof := result(); got != "said" || eof {
		t.Errorf("got %q, eof %v", got, eof)
	}
}

func TestWhatIsInThePipeIsTheStepsHoweverLongItTakes(t *testing.T) {
	for _, closed := range []bool{true, false} {
		gate := make(chan struct{})
		p, w, result := startPump(t, gate)
		text := strings.Repeat("x", chunk) // a chunk is emitted at once, and blocks
		fmt.Fprint(w, text)
		fmt.Fprint(w, "the last words") // returns when the first is out of the pipe
		if closed {
			w.Close()
		}
		p.finish(time.Now().Add(-time.Minute))
		close(gate)
		if got, eof := result(); got != text+"the last words" || eof != closed {
			t.Errorf("closed %v: got %d bytes, eof %v", closed, len(got), eof)
		}
	}
}

func TestPumpEndsThoughSomebodyWritesForEver(t *testing.T) {
	p, w, result := startPump(t, nil)
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				written <- err
				return
			}
		}
	}()
	p.finish(time.Now())
	if got, eof := result(); eof || len(got) > 10<<20 {
		t.Errorf("got %d bytes, eof %v", len(got), eof)
	}
	p.r.Close()
	if err := <-written; !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}
