package testreport

import (
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/terminal"
)

const (
	// MaxText is how many bytes of one text are read; what is longer is cut.
	MaxText = 64 << 10
	// maxDepth is how deep elements, or objects and lists, may be within each other.
	maxDepth = 100
)

// Report is a file, and where to what it says goes.
type Report struct {
	// Path is the file's in the workspace.
	Path string
	// Workspace is the absolute path of the workspace, as commands have seen it.
	Workspace string
	// Exists reports whether there is a file in the workspace, by its path in there.
	Exists func(path string) bool
	// Test and Finding take what is read, one after the other. No text of it is longer
	// than MaxText. An error ends the reading and is returned as it is.
	Test    func(*schedulerv1.Test) error
	Finding func(*schedulerv1.Finding) error
}

// seconds reads a time such as 0.01 or, as surefire writes it, 1,234.5; 0 where it is
// none.
func seconds(text string) *durationpb.Duration {
	value, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(text), ",", ""), 64)
	if err != nil {
		return nil
	}
	return lasting(value)
}

func lasting(seconds float64) *durationpb.Duration {
	const most = 10_000_000 // seconds
	if math.IsNaN(seconds) || seconds <= 0 {
		return nil
	}
	return durationpb.New(time.Duration(min(seconds, most) * float64(time.Second)))
}

// text joins what a report says of a failure: the message, and more where that does
// not begin with it.
func text(message, more string) string {
	message, more = strings.TrimSpace(terminal.Strip(message)), strings.Trim(terminal.Strip(more), "\r\n\t ")
	switch {
	case message == "" || strings.HasPrefix(more, message):
		return more
	case more == "":
		return message
	}
	return message + "\n" + more
}

// bounded collects text, as much of it as is kept.
type bounded struct {
	text strings.Builder
	tail []byte // the last of what was not kept
}

const maxTail = 8 << 10

func (b *bounded) write(piece []byte) {
	fits := min(len(piece), MaxText-b.text.Len())
	b.text.Write(piece[:fits])
	if piece = piece[fits:]; len(piece) == 0 {
		return
	}
	b.tail = append(b.tail, piece[max(len(piece)-maxTail, 0):]...)
	b.tail = b.tail[max(len(b.tail)-maxTail, 0):]
}

// kept is the beginning, in whole characters.
func (b *bounded) kept() string { return strings.ToValidUTF8(b.text.String(), "") }

// searched is the beginning and the end, for places to be looked for in.
func (b *bounded) searched() string { return b.kept() + "\n" + strings.ToValidUTF8(string(b.tail), "") }
