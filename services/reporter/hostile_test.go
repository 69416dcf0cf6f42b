package reporter

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// hostileTexts are names and messages that somebody writes who means no good,
// and some of people who write in other scripts.
func hostileTexts() []string {
	return []string{
		"\x1b[31mred\x1b[0m \x1b(B\x1b]0;a title\x07 \x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\ \x1bc \x1b[ \x1b",
		"nul \x00 bell \x07 back\b csi \u009b31m del \x7f invalid \xff\xc3",
		"line\r\nend\u2028and\u2029paragraph\vand\fpage\ttab",
		"@everyone @octocat @octo-org/admins #1 octo/shop#2 GH-3 gh-4 a@b.example",
		"<script>alert(1)</script><img src=x onerror=alert(1)> &lt; <!-- hides --> <details>",
		"[link](http://evil.example) ![image](https://evil.example/x.png) <http://evil.example> [ref][1]",
		"http://evil.example www.evil.example HTTPS://evil.example Fixes https://github.com/octo/shop/issues/1",
		"**bold** _it_ ~~gone~~ `code` ```fence``` | cell | $x$ ==a== \\",
		"- [ ] a list", "# a heading", "> a quote", "+ a list", "---",
		"user\u202egnp.exe \u2066isolated\u2069",
		"👨\u200d👩\u200d👧\u200d👦 🇩🇪 👍🏽 тесты 測試 اختبار e\u0301", //nolint:gosmopolitan // the point of it
		strings.Repeat("@everyone ", 50),
		strings.Repeat("<b>", 2000),
		strings.Repeat("測", 5000), //nolint:gosmopolitan // as above
		strings.Repeat("\x1b[31m", 5000) + "\x1b]0;never ended",
	}
}

// harmless holds a line against what no reader of it may meet.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if unicode.IsControl(r) || turns(r) || r == utf8.RuneError {
			t.Errorf("%s has %U: %q", what, r, text)
			return
		}
	}
}

// What GitHub would make something of, unless it is escaped or parted.
var live = regexp.MustCompile("@[0-9A-Za-z]|#[0-9]|(?i:gh)-[0-9]|://|www\\.|(?:^|[^\\\\])[<>`*_\\[\\]|~]")

func TestHostileTextIsHarmlessWhereverItIsShown(t *testing.T) {
	var out bytes.Buffer
	for _, text := range hostileTexts() {
		b := failedAt(text)
		b.Context, b.Title, b.Message, b.Url = "forge/test", text, text, "http://forge.example/builds/b1"
		for _, message := range []schedulerv1.Build_State{bad, schedulerv1.Build_STATE_ERRORED, schedulerv1.Build_STATE_CANCELLED, queued} {
			b.State = message
			says := displayOf(reporterv1.Target_KIND_STATUS, reportOf(b)).description
			harmless(t, "description", says)
			if n := utf8.RuneCountInString(says); n > maxDescription {
				t.Errorf("description of %d characters: %q", n, says)
			}
		}
		b.State = bad
		fmt.Fprintln(&out, displayOf(reporterv1.Target_KIND_STATUS, reportOf(b)).description)
		shown := markdown(text, maxStepName)
		harmless(t, "markdown", shown)
		if found := live.FindString(shown); found != "" {
			t.Errorf("%q is left alive in %q", found, shown)
		}
		for line := range strings.SplitSeq(summary(reportOf(b)), "\n") {
			harmless(t, "summary", line)
			if strings.HasPrefix(line, "| ") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 4 {
				t.Errorf("a row of another table: %q", line)
			}
		}
		fmt.Fprintf(&out, "  %s\n", shown)
	}
	kittest.Golden(t, "hostile", out.Bytes())
}

// hostileOutputs are what commands may print.
func hostileOutputs() map[string]string {
	outputs := map[string]string{
		"fences":        strings.Repeat("`", maxReported),
		"fences, lines": strings.Repeat("```````\n", maxReported/8),
		"half a fence":  strings.Repeat("`", longestFence-1) + "\n</code></pre><script>alert(1)</script> @everyone",
		"one line":      strings.Repeat("x", maxReported),
		"scripts":       strings.Repeat("測試", maxReported/6), //nolint:gosmopolitan // the point of it
		"nuls":          strings.Repeat("\x00", maxReported),
		"invalid":       strings.Repeat("\xff", maxReported),
		"escapes":       strings.Repeat("\x1b[1;31m\x1b]0;x\x07", maxReported/16),
		"unended":       "seen\n\x1b]0;never ended\nseen as well",
		"carriage":      strings.Repeat("50%\r", maxReported/4),
		"complaints":    strings.Repeat("a.go:1:1: @everyone <script>\u202e\x1b[31m\n", maxReported/45),
		"paths":         "../../etc/passwd:1:1: x\n/etc/shadow.txt:1:1: x\nC:\\x.txt:1:1: x\n.git/config.x:1:1: fine\n\u202ea.go:1:1: x",
		"line ends":     strings.Repeat("\n", maxReported),
	}
	for i, text := range hostileTexts() {
		outputs[fmt.Sprintf("text %d", i)] = text
	}
	return outputs
}

// Whatever a build's commands print, its check run is told, and what they
// printed stays within its frame.
func TestCheckRunOfHostileOutputIsTold(t *testing.T) {
	for name, printed := range hostileOutputs() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.adjust = asChecks
			s := w.reporter(sqlite(t))
			b := w.failed()
			b.Steps[1].Name = printed[:min(len(printed), 1000)]
			if len(printed) > maxReported {
				printed = printed[:maxReported]
			}
			_, err := s.Report(t.Context(), &reporterv1.ReportRequest{Build: valid(b), Version: 1, Output: []byte(printed)})
			w.must(err)
			w.publishAll(s)
			run := w.runs()[0]
			harmless(t, "title", run.Title)
			if n := utf8.RuneCountInString(run.Text); n > maxText || !utf8.ValidString(run.Text) {
				t.Errorf("a text of %d characters", n)
			}
			for i, line := range strings.Split(run.Text, "\n") {
				harmless(t, fmt.Sprintf("line %d", i), strings.NewReplacer("\t", "", "\ufffd", "").Replace(line))
			}
			wantFramed(t, run.Text)
			for _, a := range run.Annotations {
				harmless(t, "annotation", a.Message)
				if strings.HasPrefix(a.Path, "/") || strings.Contains(a.Path, "..") {
					t.Errorf("annotates %q", a.Path)
				}
			}
		})
	}
}

// valid has no step's name that is no UTF-8, which no message can hold.
func valid(b *schedulerv1.Build) *schedulerv1.Build {
	for _, step := range b.GetSteps() {
		step.Name = strings.ToValidUTF8(step.GetName(), "")
	}
	return b
}

// wantFramed holds a text against its frame: nothing within may end it.
func wantFramed(t *testing.T, text string) {
	t.Helper()
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	fence := lines[len(lines)-1]
	if strings.Trim(fence, "`") != "" || len(fence) < 3 || len(fence) > longestFence {
		t.Fatalf("ends in %.200q", fence)
	}
	if at := strings.Index(text, fence); !strings.HasSuffix(text[:at], "\n\n") || strings.Count(text, fence) != 2 {
		t.Errorf("%d fences, the first after %.200q", strings.Count(text, fence), text[:at])
	}
}

func TestAnswerHasNoControlCharacters(t *testing.T) {
	w := newWorld(t)
	s, ask := w.reporter(sqlite(t)), w.question()
	ask.Text = "nul \x00, \x1b[31mred\x1b[0m, \u202eback\n\n- a list\n" + strings.Repeat("long ", maxAnswer)
	_, err := s.Answer(t.Context(), ask)
	w.must(err)
	w.publishAll(s)
	body := w.comments(ask.GetPullRequest())[1].Body
	if !strings.HasPrefix(body, "nul , red, back\n\n- a list\nlong ") || !strings.HasSuffix(body, fmt.Sprintf("long…\n\n<!-- forge answers comment %d -->", ask.GetCommentId())) {
		t.Errorf("said %.60q … %q", body, body[len(body)-60:])
	}
}

// Each text at its bound: how many characters of how many are left, and how they
// begin and end.
func TestTextsAtTheirBounds(t *testing.T) {
	var out bytes.Buffer
	for _, fill := range []string{
		"a word ", "incomprehensibilities", "👨\u200d👩\u200d👧\u200d👦", "👍🏽", "🇩🇪", "e\u0301", "測試", "слово ", "كلمة ", //nolint:gosmopolitan // the point of it
	} {
		text := strings.Repeat(fill, 2500)
		b := failedAt(text)
		b.Context, b.Title, b.Message, b.Url = "forge/deploy-staging", text, text, "http://forge.example/builds/b1"
		message := &schedulerv1.Build{State: schedulerv1.Build_STATE_ERRORED, Message: text}
		rows := strings.Split(summary(reportOf(b)), "\n")
		for _, bound := range []struct {
			what, text string
			most       int
		}{
			{"step in a description", displayOf(reporterv1.Target_KIND_STATUS, reportOf(b)).description, maxDescription},
			{"message in a description", displayOf(reporterv1.Target_KIND_STATUS, reportOf(message)).description, maxDescription},
			{"deployment's description", cut(oneLine(b.GetTitle()), maxDescription), maxDescription},
			{"message in a summary", rows[0], maxMessage},
			{"step in a summary", rows[5], maxStepName + len("| ✗ | 2.  | 34s |")},
			{"annotation", annotation("a.go:1:1: " + text).GetMessage(), maxMessage},
			{"pull request in a promotion", markdown(text, maxDescription), maxDescription},
			{"answer", cut(printable(text), maxAnswer), maxAnswer},
		} {
			runes := []rune(bound.text)
			if len(runes) > bound.most {
				t.Errorf("%s has %d characters", bound.what, len(runes))
			}
			fmt.Fprintf(&out, "%-28s %4d of %4d  %s … %s\n", bound.what, len(runes), bound.most, string(runes[:14]), string(runes[len(runes)-26:]))
		}
	}
	kittest.Golden(t, "bounds", out.Bytes())
}
