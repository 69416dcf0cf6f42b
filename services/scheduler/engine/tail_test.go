package engine_test

import (
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/scheduler/engine"
)

func TestTailIsBounded(t *testing.T) {
	long := strings.Repeat("x", engine.TailBytes)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"a line", "a\n", "a\n"},
		{"a line without an end", "a\nb", "a\nb"},
		{"many lines", strings.Repeat("a\n", 40), strings.Repeat("a\n", engine.TailLines)},
		{"a long line before", "a" + long + "\nb\n", "b\n"},
		{"one long line", "a" + long, long},
	} {
		if got := engine.LastLines(c.text); got != c.want {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
}
