package testreport

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// maxEvent is how long a line may be; go test divides longer output itself.
	maxEvent = 1 << 20
	// maxOutputs is how many bytes are kept of what all tests print that have not
	// ended, and maxOutput of one.
	maxOutputs = 16 << 20
	maxOutput  = 16 << 10
	// maxRunning is how many tests, and packages, may run at once.
	maxRunning = 200_000
)

// Go reads what `go test -json` prints, or its file, in which other lines are passed
// over: https://pkg.go.dev/cmd/test2json.
func Go(from io.Reader, r Report) error {
	g := &goTests{report: r, places: newPlaces(r), tests: map[testKey]*goTest{}, packages: map[string]*goTest{}}
	lines := bufio.NewReaderSize(from, maxEvent)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 && line[0] == '{' {
			var event goEvent
			if json.Unmarshal(line, &event) == nil {
				if err := g.take(event); err != nil {
					return err
				}
			}
		}
		if err != nil {
			break
		}
	}
	if !g.begun {
		return errors.New("it holds nothing that go test -json prints")
	}
	return nil
}

type goEvent struct {
	Action      string  `json:"Action"`
	Package     string  `json:"Package"`
	Test        string  `json:"Test"`
	Output      string  `json:"Output"`
	ImportPath  string  `json:"ImportPath"`
	FailedBuild string  `json:"FailedBuild"`
	Elapsed     float64 `json:"Elapsed"` // seconds
}

type testKey struct{ pkg, name string }

// goTest is a test, or a package, that has not ended.
type goTest struct {
	output   strings.Builder
	dropped  bool // its output, since too much is kept
	children bool // a test within it has failed
	failed   bool // of a package: a test in it has
}

type goTests struct {
	report   Report
	places   *places
	begun    bool
	tests    map[testKey]*goTest
	packages map[string]*goTest // by import path, also as builds name it
	kept     int                // bytes of output
}

func (g *goTests) take(e goEvent) error {
	switch e.Action {
	case "start", "run", "pause", "cont", "bench", "build-fail":
		g.begun = g.begun || e.Package != "" || e.ImportPath != ""
	case "build-output":
		g.begun = true
		g.print(g.pkg(e.ImportPath), e.Output)
	case "output":
		if e.Test == "" {
			g.print(g.pkg(e.Package), e.Output)
		} else {
			g.print(g.test(e), e.Output)
		}
	case "pass", "fail", "skip":
		if e.Package == "" {
			return nil
		}
		g.begun = true
		if e.Test == "" {
			return g.packageEnded(e)
		}
		return g.ended(e)
	}
	return nil
}

// pkg is nil where too many are known.
func (g *goTests) pkg(path string) *goTest {
	p := g.packages[path]
	if p == nil && len(g.packages) < maxRunning {
		p = &goTest{}
		g.packages[path] = p
	}
	return p
}

func (g *goTests) test(e goEvent) *goTest {
	key := testKey{e.Package, e.Test}
	t := g.tests[key]
	if t == nil && len(g.tests) < maxRunning {
		t = &goTest{}
		g.tests[key] = t
	}
	return t
}

func (g *goTests) print(of *goTest, output string) {
	if of == nil || of.dropped || framing(output) {
		return
	}
	output = output[:min(maxOutput-of.output.Len(), len(output))]
	if g.kept += len(output); g.kept > maxOutputs { // half of what a test prints could be half a secret
		g.kept -= of.output.Len() + len(output)
		of.output, of.dropped = strings.Builder{}, true
		return
	}
	of.output.WriteString(output)
}

// framing reports whether a line is what go test itself prints around tests.
func framing(line string) bool {
	line = strings.TrimLeft(line, " ")
	for _, begin := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME", "--- PASS", "--- FAIL", "--- SKIP", "PASS\n", "FAIL\n", "FAIL\t", "ok  \t"} {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return false
}

// forget is what a test that ends has printed.
func (g *goTests) forget(key testKey) (printed string, children bool) {
	t := g.tests[key]
	if t == nil {
		return "", false
	}
	delete(g.tests, key)
	g.kept -= t.output.Len()
	return strings.ToValidUTF8(t.output.String(), ""), t.children
}

func (g *goTests) ended(e goEvent) error {
	output, children := g.forget(testKey{e.Package, e.Test})
	state := map[string]schedulerv1.Test_State{
		"pass": schedulerv1.Test_STATE_PASSED, "fail": schedulerv1.Test_STATE_FAILED, "skip": schedulerv1.Test_STATE_SKIPPED,
	}[e.Action]
	t := &schedulerv1.Test{Suite: e.Package, Name: e.Test, State: state, Duration: lasting(e.Elapsed)}
	if state != schedulerv1.Test_STATE_FAILED {
		return g.report.Test(t)
	}
	if p := g.pkg(e.Package); p != nil {
		p.failed = true
	}
	for parent := e.Test; ; { // each of them fails with it
		at := strings.LastIndexByte(parent, '/')
		if at < 0 {
			break
		}
		parent = parent[:at]
		if of := g.test(goEvent{Package: e.Package, Test: parent}); of != nil {
			of.children = true
		}
	}
	t.Message = text("", outdented(output))
	if children && t.GetMessage() == "" { // it has failed by the tests within it, which are told
		return nil
	}
	t.File, t.Line = g.places.in(output, "", packageFolders(e.Package)...)
	return g.report.Test(t)
}

// packageEnded tells of a package that has failed though none of its tests did: it
// could not be compiled, or has crashed.
func (g *goTests) packageEnded(e goEvent) error {
	p := g.pkg(e.Package)
	output := ""
	if built := g.packages[e.FailedBuild]; built != nil && e.FailedBuild != "" {
		output = built.output.String()
	}
	failed := e.Action == "fail" && (p == nil || !p.failed)
	if p != nil {
		output += p.output.String()
		g.kept -= p.output.Len()
		delete(g.packages, e.Package)
	}
	if !failed {
		return nil
	}
	t := &schedulerv1.Test{
		Suite: e.Package, Name: "(package)", State: schedulerv1.Test_STATE_ERRORED, Duration: lasting(e.Elapsed),
		Message: text("", strings.ToValidUTF8(output, "")),
	}
	t.File, t.Line = g.places.in(output, "", packageFolders(e.Package)...)
	return g.report.Test(t)
}

// goOutput is what a test of Go has printed itself.
func goOutput(output string) string {
	var own []string
	for line := range strings.Lines(output) {
		if !framing(line) {
			own = append(own, line)
		}
	}
	return outdented(strings.Join(own, ""))
}

// outdented has the lines of a test without the blanks that go test puts before them.
func outdented(output string) string {
	lines := strings.Split(output, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "    ")
	}
	return strings.Join(lines, "\n")
}
