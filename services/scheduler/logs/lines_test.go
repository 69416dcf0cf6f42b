package logs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// printed is a log as a page of it is read, in chunks of some sizes.
type printed struct {
	text  []byte
	steps []int64
}

func (p printed) page(offset int64) ([]LogChunk, error) {
	const chunk = 100 << 10
	var all []LogChunk
	for at := offset / chunk * chunk; at < int64(len(p.text)) && len(all) < 8; at += chunk {
		all = append(all, LogChunk{at, p.text[at:min(at+chunk, int64(len(p.text)))]})
	}
	return all, nil
}

// index is made of parts as they could come from a runner.
func (p printed) index(random *rand.Rand) *Index {
	x := &Index{}
	for at := 0; at < len(p.text); {
		size := min(1+random.IntN(1+random.IntN(200<<10)), len(p.text)-at)
		notes := Notes{Steps: p.steps, Times: []Stamp{{int64(at), time.UnixMilli(int64(at) * 1000)}}}
		kept, err := parsePieces(encodePieces(summarize(int64(at), p.text[at:at+size], notes)))
		if err != nil {
			panic(err)
		}
		for _, piece := range kept {
			x.add(piece)
		}
		at += size
	}
	return x
}

// lines is what a line is, said once more and simply.
func (p printed) lines() (all []Line) {
	for at := int64(0); at < int64(len(p.text)); {
		end := int64(len(p.text))
		if feed := bytes.IndexByte(p.text[at:], '\n'); feed >= 0 {
			end = at + int64(feed) + 1
		}
		for _, step := range p.steps {
			if at < step && step < end {
				end = step
			}
		}
		line := Line{Number: int64(len(all) + 1), Offset: at, Size: end - at, Text: bytes.TrimSuffix(p.text[at:end], []byte("\n"))}
		line.Open = end == int64(len(p.text)) && p.text[end-1] != '\n'
		all, at = append(all, line), end
	}
	return all
}

func randomLog(random *rand.Rand) printed {
	var p printed
	for range 1 + random.IntN(6) {
		p.steps = append(p.steps, int64(len(p.text)))
		for range random.IntN(300) {
			switch random.IntN(60) {
			case 0:
				p.text = append(p.text, strings.Repeat("long ", random.IntN(50_000))...)
			case 1:
				p.text = append(p.text, "\x1b[31merror: red\x1b[0m\n"...)
			case 2:
				p.text = append(p.text, "no line feed"...)
			default:
				p.text = append(p.text, fmt.Sprintln("line", random.IntN(1000), strings.Repeat("x", random.IntN(200)))...)
			}
		}
	}
	if p.steps = slices.Compact(p.steps); random.IntN(2) == 0 {
		p.steps = p.steps[1:]
	}
	return p
}

// Whatever parts a log comes in, each line of it is found, by its number and by its
// place.
func TestEachLineIsFound(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		p := randomLog(random)
		x, want := p.index(random), p.lines()
		if x.LineCount() != int64(len(want)) || x.Size() != int64(len(p.text)) {
			t.Fatalf("seed %d: %d lines in %d bytes, want %d in %d", seed, x.LineCount(), x.Size(), len(want), len(p.text))
		}
		for range 20 {
			if len(want) == 0 {
				break
			}
			from := random.IntN(len(want))
			offset := want[from].Offset
			if from > 0 {
				offset = want[from-1].Offset + 1 + random.Int64N(want[from-1].Size)
			}
			for name, found := range map[string][]Line{
				"number": take(t, 30, func(yield func(Line, error) bool) { Lines(p.page, x, int64(from+1))(yield) }),
				"offset": take(t, 30, func(yield func(Line, error) bool) { LinesFrom(p.page, x, offset)(yield) }),
			} {
				if len(found) != min(30, len(want)-from) {
					t.Fatalf("seed %d: by %s from line %d on: %d lines", seed, name, from+1, len(found))
				}
				for n, got := range found {
					if err := same(got, want[from+n]); err != "" {
						t.Fatalf("seed %d: by %s, line %d: %s", seed, name, from+n+1, err)
					}
				}
			}
		}
		for _, step := range p.steps {
			at, _ := slices.BinarySearchFunc(want, step, func(l Line, at int64) int { return int(l.Offset - at) })
			if got := x.FirstLine(step); got != int64(at+1) {
				t.Errorf("seed %d: the step at %d begins with line %d, want %d", seed, step, got, at+1)
			}
		}
	}
}

func take(t *testing.T, most int, all func(func(Line, error) bool)) (found []Line) {
	t.Helper()
	all(func(line Line, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, line)
		return len(found) < most
	})
	return found
}

// same says how a line differs from one that has all its text.
func same(got, want Line) string {
	text, tail := want.Text, []byte(nil)
	if len(text) > longLine {
		text, tail = text[:lineEnd], text[len(text)-lineEnd:]
	}
	switch {
	case got.Number != want.Number || got.Offset != want.Offset || got.Size != want.Size || got.Open != want.Open:
		return fmt.Sprintf("%d at %d, %d bytes, open %v; want %d at %d, %d bytes, open %v",
			got.Number, got.Offset, got.Size, got.Open, want.Number, want.Offset, want.Size, want.Open)
	case !bytes.Equal(got.Text, text) || !bytes.Equal(got.Tail, tail):
		return fmt.Sprintf("%d and %d bytes of text, want %d and %d, or other ones", len(got.Text), len(got.Tail), len(text), len(tail))
	default:
		return ""
	}
}

func TestColoursGoOnOverLinesAndEndWithTheStep(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	filler := strings.Repeat("a line of the log\n", 10_000)
	p := printed{text: []byte("\x1b[1;31mred\n" + filler + "\x1b[4mand underlined\nstill\n" + filler + "\x1b[0mplain\n\x1b[32mgreen\nstep\n")}
	p.steps = []int64{0, int64(len(p.text) - len("step\n"))}
	for range 10 {
		x := p.index(random)
		for _, c := range []struct {
			before int64 // lines from the end
			want   string
		}{{0, ""}, {1, ""}, {2, "\x1b[1;31m\x1b[4m"}, {4, "\x1b[1;31m\x1b[4m"}, {10_004, "\x1b[1;31m"}} {
			line := take(t, 1, func(yield func(Line, error) bool) { Lines(p.page, x, x.LineCount()-c.before)(yield) })[0]
			if string(line.Style) != c.want {
				t.Errorf("%d lines before the end, %q: %q, want %q", c.before, line.Text, line.Style, c.want)
			}
		}
	}
	endless := printed{text: []byte(strings.Repeat("\x1b[38;5;200m\x1b[4mx\n", 50_000))}
	x := endless.index(random)
	if line := take(t, 1, func(yield func(Line, error) bool) { Lines(endless.page, x, 40_000)(yield) })[0]; len(line.Style) > styleMost {
		t.Errorf("%d bytes of style", len(line.Style))
	}
}

func TestLinesTellWhenTheyWerePrinted(t *testing.T) {
	x, text := &Index{}, []byte(strings.Repeat("0123456\n", 1000))
	for n := range int64(10) {
		for _, p := range summarize(n*800, text[n*800:(n+1)*800], Notes{Times: []Stamp{{n * 800, time.UnixMilli(1_800_000_000_000 + n*1000)}}}) {
			x.add(p)
		}
	}
	for line, want := range map[int64]int64{1: 0, 100: 0, 101: 1, 1000: 9} {
		got := take(t, 1, func(yield func(Line, error) bool) { Lines(printed{text: text}.page, x, line)(yield) })[0].Time
		if got.UnixMilli() != 1_800_000_000_000+want*1000 {
			t.Errorf("line %d: %v", line, got)
		}
	}
}

func TestLevels(t *testing.T) {
	for line, want := range map[string]Level{
		"main.go:3: error: no such thing": Error, "error[E0308]: mismatched types": Error, "\x1b[0m\x1b[1m\x1b[38;5;9merror\x1b[0m\x1b[1m: x": Error,
		"--- FAIL: TestX (0.0s)": Error, "FAIL\tpkg\t0.1s": Error, "FAILED tests/x.py::y": Error, "TypeError: x is undefined": Error,
		"npm ERR! code 1": Error, "npm ERR!": Error, "2026-01-01 ERROR db gone": Error, "panic: nil map": Error, "fatal: not a repository": Error,
		"Traceback (most recent call last):": Error, "::error file=x::y": Error, "##[error]y": Error, "PHP Fatal error:  x": Error,
		"warning: unused": Warning, "DeprecationWarning: old": Warning, "WARN deprecated": Warning, "[WARNING] x": Warning, "[warn] y": Warning,
		"0 errors, 0 warnings": Plain, "error handling works": Plain, "ok errors 0.1s": Plain, "TERROR": Plain, "FAILSAFE": Plain, "forewarn: x": Plain, "": Plain,
		"warning: this is an error: x": Error,
	} {
		if got := LevelOf([]byte(line)); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

func TestMarksAreBoundedAndKeepTheWorst(t *testing.T) {
	var p printed
	for n := range 20_000 {
		switch {
		case n == 12_345:
			p.text = append(p.text, "ERROR here\n"...)
		case n%3 == 0:
			p.text = append(p.text, "WARN there\n"...)
		default:
			p.text = append(p.text, "nothing to see here\n"...)
		}
	}
	x := p.index(rand.New(rand.NewPCG(3, 4)))
	marks := x.Marks(10)
	if len(marks) > 11 || !slices.Contains(marks, Mark{12_346, Error}) {
		t.Errorf("%v", marks)
	}
	if !slices.IsSortedFunc(marks, func(a, b Mark) int { return int(a.Line - b.Line) }) {
		t.Errorf("out of order: %v", marks)
	}
}

// What another has stored, or somebody has broken, is refused, not believed.
func FuzzPieces(f *testing.F) {
	p := randomLog(rand.New(rand.NewPCG(5, 6)))
	f.Add(encodePieces(summarize(0, p.text, Notes{Steps: p.steps, Times: []Stamp{{0, time.UnixMilli(5)}}})))
	f.Add([]byte{pieceVersion})
	f.Fuzz(func(t *testing.T, text []byte) {
		pieces, err := parsePieces(text)
		if err != nil {
			return
		}
		again, err := parsePieces(encodePieces(pieces))
		if err != nil || len(again) != len(pieces) {
			t.Errorf("%x: %d pieces, then %d, %v", text, len(pieces), len(again), err)
		}
	})
}
