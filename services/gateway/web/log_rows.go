package web

import (
	"bytes"
	"fmt"
	"html/template"
	"iter"
	"strings"

	"github.com/dustin/go-humanize"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/find"
	"github.com/forge-ci/forge/services/kit/terminal"
)

// rows makes HTML of lines that follow each other.
type rows struct {
	build    *schedulerv1.Build // whose steps have names
	finder   *find.Finder       // whose hits are marked; nil: none are
	renderer terminal.Renderer
	scratch  find.Scratch
}

// of is the HTML of lines, a row for each.
func (r *rows) of(resp *schedulerv1.ReadLogResponse) (string, error) {
	if err := r.renderer.Style(resp.GetStyle()); err != nil {
		return "", err
	}
	return r.more(resp.GetLines())
}

// more is the HTML of lines that come right after those before.
func (r *rows) more(lines []*schedulerv1.LogLine) (string, error) {
	var all strings.Builder
	for _, line := range lines {
		if line.GetStep() > 0 && line.GetStepLine() == 1 {
			fmt.Fprintf(&all, "<div class=\"step\" id=\"step-%d\">%s</div>\n", line.GetStep(), template.HTMLEscapeString(r.stepName(line.GetStep())))
		}
		class := "l"
		switch line.GetLevel() {
		case schedulerv1.LogLine_LEVEL_ERROR:
			class += " e"
		case schedulerv1.LogLine_LEVEL_WARNING:
			class += " w"
		case schedulerv1.LogLine_LEVEL_UNSPECIFIED:
		}
		if line.GetOpen() {
			class += " open"
		}
		id := fmt.Sprintf("step-%d-L%d", line.GetStep(), line.GetStepLine())
		printed := ""
		if line.GetTime() != nil {
			printed = ` data-t="` + line.GetTime().AsTime().Format("15:04:05.000") + `"`
		}
		shown, err := r.text(line)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "<div class=\"%s\" id=\"%s\" data-n=\"%d\"><a href=\"#%s\"%s>%d</a><span>%s</span></div>\n",
			class, id, line.GetNumber(), id, printed, line.GetStepLine(), shown)
	}
	return all.String(), nil
}

func (r *rows) stepName(number int32) string {
	for _, step := range r.build.GetSteps() {
		if step.GetNumber() == number {
			return stepTitle(step)
		}
	}
	return fmt.Sprint("step ", number)
}

// stepTitle is what a step is called, or else the first line of its command.
func stepTitle(step *schedulerv1.Step) string {
	if step.GetName() != "" {
		return step.GetName()
	}
	first, _, _ := strings.Cut(strings.TrimSpace(step.GetRun()), "\n")
	return first
}

// text is the HTML of a line's text.
func (r *rows) text(line *schedulerv1.LogLine) (string, error) {
	if len(line.GetTail()) == 0 {
		return r.part(line.GetText())
	}
	// Of what is drawn again and again the end alone is there.
	tail := line.GetTail()
	if at := bytes.IndexByte(bytes.TrimRight(tail, "\r"), '\r'); at >= 0 {
		return r.part(tail[at+1:])
	}
	begin, err := r.part(line.GetText())
	if err != nil {
		return "", err
	}
	end, err := r.part(tail)
	left := line.GetSize() - int64(len(line.GetText())+len(tail))
	return fmt.Sprintf(`%s<i class="cut">… %s of this line are left out here …</i>%s`, begin, humanize.IBytes(uint64(max(left, 0))), end), err
}

func (r *rows) part(text []byte) (string, error) {
	shown, err := r.renderer.Line(text)
	if err != nil || r.finder == nil {
		return shown, err
	}
	return terminal.Highlight(shown, func(text []byte) iter.Seq2[int, int] { return r.finder.Each(text, &r.scratch) }), nil
}
