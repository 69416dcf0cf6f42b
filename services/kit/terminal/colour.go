package terminal

import (
	"strconv"
	"strings"
)

// colours is the sequence that sets what body says, each of 256 or of 16 million
// colours being the closest of 16: those can be read on a light page and on a dark one.
func colours(body string) string {
	parts := strings.FieldsFunc(body, func(r rune) bool { return r == ':' })
	if strings.Contains(body, ":") {
		body = strings.Join(parts, ";")
	}
	given := strings.Split(body, ";")
	var kept []string
	for n := 0; n < len(given); n++ {
		if given[n] != "38" && given[n] != "48" {
			kept = append(kept, given[n])
			continue
		}
		colour, used := extended(given[n+1:])
		n += used
		if colour < 0 {
			continue
		}
		code := 30 + colour
		if colour > 7 {
			code = 90 + colour - 8
		}
		if given[n-used] == "48" {
			code += 10
		}
		kept = append(kept, strconv.Itoa(code))
	}
	if kept == nil {
		return ""
	}
	return "\x1b[" + strings.Join(kept, ";") + "m"
}

// extended is which of 16 colours is meant by what follows 38 or 48, and how much of
// that says so; -1 where it says nothing.
func extended(given []string) (colour, used int) {
	number := func(n int) int {
		if n >= len(given) {
			return -1
		}
		value, err := strconv.Atoi(given[n])
		if err != nil || value > 255 {
			return -1
		}
		return value
	}
	switch number(0) {
	case 5:
		return of256(number(1)), min(2, len(given))
	case 2:
		red, green, blue := number(1), number(2), number(3)
		if min(red, green, blue) < 0 {
			return -1, min(4, len(given))
		}
		return closest(red, green, blue), 4
	default:
		return -1, min(1, len(given))
	}
}

// of256 is the closest to one of the 256 that xterm has: the 16, a cube of 216, and 24 greys.
func of256(n int) int {
	if n < 16 {
		return n
	}
	if n >= 232 {
		grey := 8 + 10*(n-232)
		return closest(grey, grey, grey)
	}
	level := func(n int) int {
		if n == 0 {
			return 0
		}
		return 55 + 40*n
	}
	n -= 16
	return closest(level(n/36), level(n/6%6), level(n%6))
}

// closest is which of the 16 looks most like a colour. Greys stay greys: colour is a hint,
// and a grey one gives none.
func closest(red, green, blue int) int {
	high, low := max(red, green, blue), min(red, green, blue)
	if high-low < 40 {
		switch {
		case high < 50:
			return 0
		case high < 150:
			return 8
		case high < 220:
			return 7
		default:
			return 15
		}
	}
	colour, middle := 0, (high+low)/2
	for bit, part := range []int{red, green, blue} {
		if part > middle {
			colour |= 1 << bit
		}
	}
	if high > 200 && low > 60 {
		colour += 8
	}
	return colour
}
