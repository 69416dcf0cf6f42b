package testreport

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// JUnit reads JUnit XML as the many programs write it that have no common schema:
// https://github.com/testmoapp/junitxml has their dialects side by side.
func JUnit(from io.Reader, r Report) error {
	buffered := bufio.NewReader(from)
	if mark, _ := buffered.Peek(3); bytes.Equal(mark, []byte("\ufeff")) {
		_, _ = buffered.Discard(len(mark)) // which was peeked at
	}
	decoder := xml.NewDecoder(newClip(buffered))
	decoder.CharsetReader = asciiKin
	j := &junit{report: r, places: newPlaces(r)}
	for {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF) && !j.begun:
			return errors.New("it is empty")
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errDocumentType):
			return errDocumentType
		case err != nil:
			return fmt.Errorf("it is no XML: %w", err)
		}
		if err := j.take(token); err != nil {
			return err
		}
	}
}

// asciiKin reads the encodings that are bytes of Latin-1.
func asciiKin(name string, from io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "iso-8859-1", "latin1", "latin-1", "windows-1252":
		return &latin1{from: bufio.NewReader(from)}, nil
	}
	return nil, fmt.Errorf("its encoding %q is not read: write it as UTF-8", name)
}

type latin1 struct {
	from *bufio.Reader
	rest []byte
}

func (l *latin1) Read(into []byte) (n int, err error) {
	for n < len(into) {
		if len(l.rest) > 0 {
			moved := copy(into[n:], l.rest)
			n, l.rest = n+moved, l.rest[moved:]
			continue
		}
		b, err := l.from.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		l.rest = []byte(string(rune(b)))
	}
	return n, nil
}

// junit is a file on its way.
type junit struct {
	report Report
	places *places
	begun  bool
	path   []string // names of the elements that are open
	suites []suite
	test   *testcase // that is open
}

type suite struct{ name, file string }

// testcase is one while its element is open.
type testcase struct {
	*schedulerv1.Test
	depth   int
	outcome string // the element that is open in it
	at      int    // how deep that is
	message string // of the first outcome
	text    bounded
	told    bool // the first outcome has ended
	failed  bool // once, of several runs
}

// outcomes are the elements that say how a test went. Those of surefire that begin
// with flaky are of runs before the one that passed, those with rerun of runs before
// or after one that failed.
var outcomes = map[string]schedulerv1.Test_State{
	"failure": schedulerv1.Test_STATE_FAILED, "error": schedulerv1.Test_STATE_ERRORED, "skipped": schedulerv1.Test_STATE_SKIPPED,
	"rerunFailure": 0, "rerunError": 0, "rerun": 0, "flakyFailure": 0, "flakyError": 0,
}

func (j *junit) take(token xml.Token) error {
	switch token := token.(type) {
	case xml.StartElement:
		if len(j.path) >= maxDepth {
			return fmt.Errorf("its elements are nested deeper than %d levels", maxDepth)
		}
		if name := token.Name.Local; !j.begun && name != "testsuites" && name != "testsuite" {
			return fmt.Errorf("it is no JUnit XML: it begins with <%s>, not with <testsuites> or <testsuite>", clipped(name))
		}
		j.begun = true
		j.path = append(j.path, token.Name.Local)
		j.start(token)
	case xml.EndElement:
		err := j.end(token.Name.Local)
		j.path = j.path[:max(len(j.path)-1, 0)]
		return err
	case xml.CharData:
		if j.test != nil && j.test.outcome != "" && !j.test.told && !printed(j.path[j.test.at:]) {
			j.test.text.write(token)
		}
	}
	return nil
}

// printed reports whether these elements hold what a test has printed.
func printed(path []string) bool {
	for _, name := range path {
		if name == "system-out" || name == "system-err" {
			return true
		}
	}
	return false
}

func clipped(name string) string { return name[:min(len(name), 60)] }

func attributes(element xml.StartElement) map[string]string {
	all := make(map[string]string, len(element.Attr))
	for _, a := range element.Attr {
		all[a.Name.Local] = a.Value
	}
	return all
}

func (j *junit) start(element xml.StartElement) {
	switch name := element.Name.Local; {
	case j.test != nil:
		if _, known := outcomes[name]; known && j.test.outcome == "" {
			j.test.begin(name, attributes(element), len(j.path))
		}
	case name == "testsuite":
		given := attributes(element)
		s := suite{given["name"], given["file"]}
		if len(j.suites) > 0 && s.file == "" {
			s.file = j.suites[len(j.suites)-1].file
		}
		j.suites = append(j.suites, s)
	case name == "testcase":
		j.begin(attributes(element))
	}
}

func (j *junit) begin(given map[string]string) {
	t := &testcase{depth: len(j.path), Test: &schedulerv1.Test{
		Name: given["name"], Class: given["classname"], File: given["file"], Duration: seconds(given["time"]), State: schedulerv1.Test_STATE_PASSED,
	}}
	if t.Class == "" {
		t.Class = given["class"]
	}
	if len(j.suites) > 0 {
		of := j.suites[len(j.suites)-1]
		t.Suite = of.name
		if t.File == "" {
			t.File = of.file
		}
	}
	if line, err := strconv.ParseInt(given["line"], 10, 32); err == nil && line >= 0 && line < maxLine {
		t.Line = int32(line)
		if t.GetSuite() == "pytest" { // which counts lines from 0
			t.Line++
		}
	}
	switch given["status"] { // of ctest and GoogleTest
	case "notrun", "disabled":
		t.State = schedulerv1.Test_STATE_SKIPPED
	}
	if given["result"] == "skipped" {
		t.State = schedulerv1.Test_STATE_SKIPPED
	}
	j.test = t
}

// begin takes an element that says how the test went: the worst counts.
func (t *testcase) begin(name string, given map[string]string, depth int) {
	t.outcome, t.at = name, depth
	if state := outcomes[name]; state == 0 {
		t.failed = true
	} else if state > t.State {
		t.State = state
	}
	if t.message == "" && !t.told {
		if t.message = given["message"]; t.message == "" {
			t.message = given["type"]
		}
	}
}

func (j *junit) end(name string) error {
	switch {
	case j.test != nil && len(j.path) == j.test.depth:
		t := j.test
		j.test = nil
		return j.report.Test(j.finish(t))
	case j.test != nil && j.test.outcome != "" && len(j.path) == j.test.at:
		j.test.outcome, j.test.told = "", true
	case j.test == nil && name == "testsuite" && len(j.suites) > 0:
		j.suites = j.suites[:len(j.suites)-1]
	}
	return nil
}

// finish fills in what the whole element tells: the message, and where.
func (j *junit) finish(t *testcase) *schedulerv1.Test {
	t.Flaky = t.failed && t.GetState() == schedulerv1.Test_STATE_PASSED
	folders := packageFolders(t.GetClass()) // of gotestsum
	file := j.places.file(t.GetFile(), folders...)
	if t.GetState() < schedulerv1.Test_STATE_FAILED && !t.GetFlaky() {
		if t.File = file; file == "" {
			t.Line = 0
		}
		return t.Test
	}
	preferred := file
	if preferred == "" {
		preferred = j.places.class(t.GetClass())
	}
	if t.Message = text(t.message, t.text.kept()); strings.HasPrefix(t.text.kept(), "=== RUN") { // gotestsum's
		t.Message = text("", goOutput(t.text.kept()))
	}
	at, line := j.places.in(terminal.Strip(t.message+"\n"+t.text.searched()), preferred, folders...)
	switch {
	case line > 0 && (at == preferred || preferred == "" || file == ""):
		t.File, t.Line = at, line
	case file != "":
		t.File = file
	default:
		t.File, t.Line = preferred, 0
	}
	return t.Test
}
