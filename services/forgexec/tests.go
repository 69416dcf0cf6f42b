package forgexec

import (
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/mask"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// What is told of one test, in bytes.
const (
	maxTestName    = 500
	maxTestMessage = 4000
	// testBatch is about how much one report holds.
	testBatch = 31 << 10
	// fullMessages is how many failures have a message of that length; of the others
	// the scheduler keeps none.
	fullMessages = 2000
)

// tests sends what reports say, in batches, with secrets masked.
type tests struct {
	report func(*schedulerv1.Report)
	masker *mask.Masker

	batch   *schedulerv1.TestReport
	size    int
	count   int // of tests that were told
	failed  int
	found   int // findings
	leftOut int64
}

func newTests(s *sequence) *tests {
	return &tests{report: s.report, masker: s.masker, batch: &schedulerv1.TestReport{}}
}

func (t *tests) test(test *schedulerv1.Test) error {
	if t.count == maxTests {
		t.leftOut++
		t.batch.LeftOut++
		return nil
	}
	t.count++
	bad := test.GetState() >= schedulerv1.Test_STATE_FAILED
	if bad {
		t.failed++
	}
	if t.failed > fullMessages || !bad && !test.GetFlaky() {
		test.Message = ""
	}
	test.Suite, test.Class, test.Name = t.name(test.GetSuite()), t.name(test.GetClass()), t.name(test.GetName())
	test.Message = t.message(test.GetMessage())
	if test.File, test.Line = t.place(test.GetFile(), test.GetLine()); test.GetName() == "" {
		test.Name = "(no name)"
	}
	t.batch.Tests = append(t.batch.Tests, test)
	t.grow(test)
	return nil
}

func (t *tests) finding(f *schedulerv1.Finding) error {
	if t.found == maxFindings {
		t.leftOut++
		t.batch.LeftOut++
		return nil
	}
	t.found++
	f.Tool, f.Rule, f.Message = t.name(f.GetTool()), t.name(f.GetRule()), t.message(f.GetMessage())
	if f.File, f.Line = t.place(f.GetFile(), f.GetLine()); f.GetLine() == 0 {
		f.EndLine = 0
	}
	t.batch.Findings = append(t.batch.Findings, f)
	t.grow(f)
	return nil
}

func (t *tests) grow(by proto.Message) {
	if t.size += proto.Size(by) + 4; t.size >= testBatch {
		t.send()
	}
}

// send tells what has been read. It may block while too much waits to be sent.
func (t *tests) send() {
	if t.size > 0 || t.batch.GetLeftOut() > 0 {
		t.report(&schedulerv1.Report{Event: &schedulerv1.Report_Tests{Tests: t.batch}})
	}
	t.batch, t.size = &schedulerv1.TestReport{}, 0
}

// masked hides secrets before anything is cut, or half of one could be left. Of a text
// that was cut while it was read the end is held back for the same reason.
func (t *tests) masked(text string) string {
	text = terminal.Strip(text)
	if t.masker == nil || text == "" {
		return text
	}
	stream := t.masker.Stream()
	hidden := string(stream.Write([]byte(text)))
	if len(text) < cutWhileRead {
		hidden += string(stream.Flush())
	}
	return hidden
}

// cutWhileRead is shorter than any text that a reader of reports has cut.
const cutWhileRead = 8 << 10

// name is one line.
func (t *tests) name(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, t.masked(strings.ToValidUTF8(text, "")))
	return clipText(strings.TrimSpace(text), maxTestName-len("…"))
}

func (t *tests) message(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, t.masked(strings.ToValidUTF8(text, "")))
	return clipText(text, maxTestMessage-len("…"))
}

// place is none where its path holds a secret.
func (t *tests) place(file string, line int32) (string, int32) {
	if file == "" || t.masked(file) != file {
		return "", 0
	}
	return file, line
}
