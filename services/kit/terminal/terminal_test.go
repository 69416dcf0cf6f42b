package terminal

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscapeSequencesAreStripped(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"colours":                  {"a\x1b[31mb\x1b[0;1mc", "abc"},
		"moves":                    {"\x1b[2K\x1b[1;1Hdone", "done"},
		"a private mode":           {"\x1b[?25lhidden\x1b[?25h", "hidden"},
		"a title":                  {"\x1b]0;title\x07FAIL", "FAIL"},
		"a link":                   {"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"},
		"a device control string":  {"\x1bP1$r\x1b\\text", "text"},
		"a character set":          {"\x1b(Btext", "text"},
		"two characters":           {"\x1bcreset \x1b7saved", "reset saved"},
		"a title without an end":   {"seen\n\x1b]0;never ended\nand more", "seen\n\nand more"},
		"a string without an end":  {"\x1bPnor this\nFAIL\n", "\nFAIL\n"},
		"half a control sequence":  {"text\x1b[", "text"},
		"half of one, at its line": {"text\x1b[3\nmore", "text\nmore"},
		"half a character set":     {"text\x1b(", "text"},
		"ESC alone":                {"text\x1b", "text"},
		"ESC before a line end":    {"text\x1b\nmore", "text\nmore"},
		"ESC twice":                {"text\x1b\x1b[31mred", "textred"},
		"other control characters": {"bell\x07 tab\t return\r\n", "bell\x07 tab\t return\r\n"},
		"brackets without ESC":     {"[31m ]0; <b>", "[31m ]0; <b>"},
		"other scripts":            {"\x1b[31mтест 測試\x1b[0m", "тест 測試"}, //nolint:gosmopolitan // the point of it
	} {
		if got := Strip(c.text); got != c.want {
			t.Errorf("%s: Strip(%q) = %q, want %q", name, c.text, got, c.want)
		}
	}
}

func TestOutputReadsAsATerminalShowsIt(t *testing.T) {
	for name, c := range map[string]struct{ output, want string }{
		"a progress bar":                 {" 10%\r 50%\r100%\nFAIL\n", "100%\nFAIL\n"},
		"a progress bar under way":       {" 10%\r 50%\r", " 50%"},
		"a progress bar by cursor moves": {"10%\x1b[1G50%\x1b[2K\x1b[G100%\x1b[0K\n", "100%\n"},
		"line ends of Windows":           {"a\r\nb\r\r\n", "a\nb\n"},
		"colours":                        {"\x1b[1;32mok\x1b[0m\r\n", "ok\n"},
		"control characters":             {"bell\x07 null\x00 tab\t del\x7f csi\u009b1m", "bell null tab\t del csi1m"},
		"no UTF-8":                       {"caf\xc3\xa9 \xff", "café \uFFFD"},
		"nothing":                        {"", ""},
	} {
		if got := Text([]byte(c.output)); got != c.want {
			t.Errorf("%s: Text(%q) = %q, want %q", name, c.output, got, c.want)
		}
	}
}

// Whatever is printed, nothing that a terminal obeys is left, no line is lost, and nothing is there that was not printed.
func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"\x1b[31mred\x1b[0m \x1b(B\x1b]0;a title\x07 \x1b]8;;http://x\x1b\\link \x1bc \x1b[ \x1b", "10%\r20%\n", "\x1b]0;no end\nx",
		"\x1b\x1b[[31m", "\x1b[\x1b]31m\x07", "\xff\xc3\u009b31m", "\x1b[1G\x1b[`",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, output string) {
		stripped := Strip(output)
		if strings.Contains(stripped, "\x1b") || Strip(stripped) != stripped || !isPart(stripped, output) {
			t.Errorf("Strip(%q) = %q", output, stripped)
		}
		text := Text([]byte(output))
		for _, r := range text {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Errorf("Text(%q) has %U", output, r)
			}
		}
		if !utf8.ValidString(text) || Text([]byte(text)) != text || strings.Count(text, "\n") != strings.Count(output, "\n") {
			t.Errorf("Text(%q) = %q", output, text)
		}
	})
}

// isPart reports whether the bytes of part stand in whole, in this order.
func isPart(part, whole string) bool {
	for i := range len(whole) {
		if part != "" && part[0] == whole[i] {
			part = part[1:]
		}
	}
	return part == ""
}
