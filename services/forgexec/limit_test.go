package forgexec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// seq is what `seq first last` prints.
func seq(first, last int) string {
	var text strings.Builder
	for n := first; n <= last; n++ {
		fmt.Fprintln(&text, n)
	}
	return text.String()
}

var leftOut = regexp.MustCompile(`forge: (\d+) bytes left out here\n`)

// parted is the log of one step: its head, how much is left out, its tail.
func parted(t *testing.T, log string) (head string, left int, tail string) {
	t.Helper()
	head, rest, found := strings.Cut(log, "forge: the log is limited to ")
	cut := leftOut.FindStringSubmatchIndex(rest)
	if !found || cut == nil || strings.Count(rest, "\n") == 0 {
		t.Fatalf("nothing is left out: %.200q", log)
	}
	left, err := strconv.Atoi(rest[cut[2]:cut[3]])
	if err != nil {
		t.Fatal(err)
	}
	return head, left, rest[cut[1]:]
}

func TestOfALongLogTheHeadAndTheTailAreKept(t *testing.T) {
	const limit = 100 << 10
	s := newScheduler(t, "seq 1 99999", "seq 1 99999; exit 3", "never run")
	s.plan.LogLimit = limit
	s.forgexec(t).wantExit(t, exitReported)
	whole := seq(1, 99999)
	logs := strings.SplitAfter(string(s.output()), "99999\n")
	if len(logs) != 3 || logs[2] != "" {
		t.Fatalf("%d ends: %.100q", len(logs)-1, s.output())
	}
	for n, log := range logs[:2] {
		head, left, tail := parted(t, log)
		cut := strings.TrimSuffix(head, "\n")
		if !strings.HasPrefix(whole, cut) || !strings.HasSuffix(whole, "\n"+tail) {
			t.Errorf("step %d: head %.50q…, tail %.50q…", n+1, head, tail)
		}
		if head := len(whole) - left - len(tail); head != len(cut) && head != len(cut)+1 {
			t.Errorf("step %d: %d + %d + %d bytes are not all %d", n+1, len(cut), left, len(tail), len(whole))
		}
		if len(cut)+len(tail) < leastHead {
			t.Errorf("step %d: only %d bytes are kept", n+1, len(cut)+len(tail))
		}
	}
	if size := len(s.output()); size < limit/2 || size > limit+(1<<10) {
		t.Errorf("%d bytes are kept of a limit of %d", size, limit)
	}
}

func TestAFloodIsBounded(t *testing.T) {
	for name, run := range map[string]string{
		"yes": "yes | head -c 300000000", "an endless line": "head -c 300000000 /dev/zero",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScheduler(t, run, "echo heard")
			s.plan.LogLimit = 1 << 20
			s.forgexec(t).wantExit(t, exitReported)
			if got := s.output(); len(got) > 1<<20 || !bytes.HasSuffix(got, []byte("heard\n")) {
				t.Errorf("%d bytes that end in %q", len(got), got[max(0, len(got)-20):])
			}
		})
	}
}

// However the output is cut into pieces: what is handed on is the head, what is
// said, and the tail, and nothing is missing but what is said to be.
func TestWhatIsLeftOutIsCounted(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		whole := []byte(seq(1, random.IntN(20000)))
		b := budget{limit: 40 << 10, left: int64(random.IntN(40 << 10))}
		var got bytes.Buffer
		s := b.step(random.IntN(2) == 0, func(data []byte) {
			if len(data) > chunk {
				t.Errorf("a chunk of %d bytes", len(data))
			}
			got.Write(data)
		})
		head, tail := s.head, s.tail.most
		for rest := whole; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(3*s.tail.most))
			s.write(bytes.Clone(rest[:min(n, chunk)]))
			rest = rest[min(n, chunk):]
		}
		s.end()
		if int64(len(whole)) <= head {
			if !bytes.Equal(got.Bytes(), whole) {
				t.Errorf("%d bytes of %d, though there was room", got.Len(), len(whole))
			}
			continue
		}
		if !bytes.HasPrefix(got.Bytes(), whole[:head]) {
			t.Errorf("the head is not the first %d bytes", head)
		}
		if len(whole) <= int(head)+tail {
			if !bytes.HasSuffix(got.Bytes(), whole[head:]) || leftOut.Match(got.Bytes()) {
				t.Errorf("the rest is not handed on whole: %q", got.Bytes()[head:])
			}
			continue
		}
		_, left, kept := parted(t, got.String())
		if !bytes.HasSuffix(whole, []byte("\n"+kept)) || int(head)+left+len(kept) != len(whole) {
			t.Errorf("%d + %d + %d bytes of %d", head, left, len(kept), len(whole))
		}
	}
}
