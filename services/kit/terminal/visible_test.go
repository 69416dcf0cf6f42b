package terminal

import (
	"bytes"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Visible is Text for much output, a block at a time.
func FuzzVisible(f *testing.F) {
	for _, seed := range []string{
		"\x1b[31mred\x1b[0m \x1b(B\x1b]0;a title\x07 \x1b]8;;http://x\x1b\\link \x1bc \x1b[ \x1b", "10%\r20%\n", "\x1b]0;no end\nx",
		"\x1b\x1b[[31m", "\x1b[\x1b]31m\x07", "10%\x1b[1G50%\x1b[2K\x1b[G100%\x1b[0K\n", "a\r\nb\r\r\n", "a\r\x1b[0m\nb\x1b[G\n", "a\r\x00\n", "\x1b[01Gx", "\x1b]\x1b\\\x1b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, output []byte) {
		if bytes.ContainsFunc(output, func(r rune) bool { return r == utf8.RuneError || r >= utf8.RuneSelf && unicode.IsControl(r) }) {
			return // only Text looks at these
		}
		got, _ := Visible([]byte("kept"), output)
		if want := "kept" + Text(output); string(got) != want {
			t.Errorf("Visible(%q) = %q, want %q", output, got, want)
		}
	})
}

func TestVisibleTellsThatALineWasDrawnOver(t *testing.T) {
	for output, want := range map[string]bool{"10%\r20%": true, "10%\r": false, "a\rb\nc": false, "a\nb\rc": true, "\x1b[Gx": true} {
		if _, got := Visible(nil, []byte(output)); got != want {
			t.Errorf("%q: drawn over: %v", output, got)
		}
	}
}
