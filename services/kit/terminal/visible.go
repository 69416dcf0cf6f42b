package terminal

import "bytes"

// special are the bytes that Visible does not copy as they are.
var special = func() (all [256]bool) {
	for c := range 0x20 {
		all[c] = c != '\n' && c != '\t'
	}
	all[0x7f] = true
	return all
}()

// Visible appends what output is left showing, line by line as Text has it, but for
// bytes that are no UTF-8, which stay. It has as many line feeds as output. drawnOver
// is that the beginning of the last line, and all that came of it before, was drawn
// over.
func Visible(dst, output []byte) (text []byte, drawnOver bool) {
	line, home := len(dst), false // home: what is shown next begins the line anew
	show := func() {
		if home {
			dst, drawnOver, home = dst[:line], true, false
		}
	}
	for from := 0; from < len(output); {
		at := from
		for at < len(output) && !special[output[at]] {
			at++
		}
		if run := output[from:at]; len(run) > 0 {
			if run[0] != '\n' {
				show()
			}
			home = false
			dst = append(dst, run...)
			if feed := bytes.LastIndexByte(run, '\n'); feed >= 0 {
				line, drawnOver = len(dst)-len(run)+feed+1, false
			}
		}
		if at == len(output) {
			break
		}
		from = at + 1
		switch output[at] {
		case '\r':
			home = true
		case 0x1b:
			size := sequence(output[at:])
			home = home || goesHome(output[at:at+size])
			from = at + size
		default: // a control character, which shows nothing
			show()
		}
	}
	return dst, drawnOver
}

// goesHome reports whether a sequence is as the expression homes has it.
func goesHome(sequence []byte) bool {
	n := len(sequence)
	if n < 3 || n > 4 || sequence[1] != '[' || n == 4 && sequence[2] != '0' && sequence[2] != '1' {
		return false
	}
	return sequence[n-1] == 'G' || sequence[n-1] == '`'
}

// sequence is the size of the escape sequence that output begins with, as the
// expression escapes has it.
func sequence(output []byte) int {
	if len(output) == 1 {
		return 1
	}
	n := 2
	skip := func(low, high byte) {
		for n < len(output) && low <= output[n] && output[n] <= high {
			n++
		}
	}
	one := func(low, high byte) {
		if n < len(output) && low <= output[n] && output[n] <= high {
			n++
		}
	}
	switch output[1] {
	case '[':
		skip('0', '?')
		skip(' ', '/')
		one('@', '~')
	case ']', 'P', 'X', '^', '_':
		end := bytes.IndexAny(output[n:], "\x07\x1b\n")
		if end < 0 {
			return len(output)
		}
		n += end
		switch {
		case output[n] == '\x07':
			n++
		case output[n] == 0x1b && n+1 < len(output) && output[n+1] == '\\':
			n += 2
		}
	default:
		n = 1
		skip(' ', '/')
		one('0', '~')
	}
	return n
}
