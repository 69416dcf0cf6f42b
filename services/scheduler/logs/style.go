package logs

import "bytes"

// style is what a part of a log does to the colours of what comes after it.
type style struct {
	reset     bool   // nothing of what came before it matters
	sequences []byte // the escape sequences that set colours since then
}

// styleMost bounds what is kept of a style, in bytes: of who sets colours for ever and never resets them, the last count.
const styleMost = 256

const escape = 0x1b

// then is what both do, one after the other.
func (s style) then(next style) style {
	if next.reset || len(s.sequences) == 0 {
		return style{s.reset || next.reset, next.sequences}
	}
	if len(next.sequences) == 0 {
		return s
	}
	return style{s.reset, shorter(append(bytes.Clone(s.sequences), next.sequences...))}
}

// shorter drops sequences from the beginning until the rest is short enough.
func shorter(sequences []byte) []byte {
	for len(sequences) > styleMost {
		next := bytes.IndexByte(sequences[1:], escape)
		if next < 0 {
			return nil
		}
		sequences = sequences[1+next:]
	}
	return sequences
}

// styleOf is what data does.
func styleOf(data []byte) (s style) {
	for {
		at := bytes.IndexByte(data, escape)
		if at < 0 {
			return s
		}
		data = data[at:]
		sequence := colours(data)
		if sequence == nil {
			data = data[1:]
			continue
		}
		data = data[len(sequence):]
		switch parameters := sequence[2 : len(sequence)-1]; {
		case len(parameters) == 0 || string(parameters) == "0":
			s = style{reset: true}
		case bytes.HasPrefix(parameters, []byte("0;")):
			s = style{reset: true, sequences: bytes.Clone(sequence)}
		default:
			s.sequences = shorter(append(s.sequences, sequence...))
		}
	}
}

// colours is the sequence that data begins with, if it sets colours; such a one is
// short.
func colours(data []byte) []byte {
	if len(data) < 3 || data[1] != '[' {
		return nil
	}
	for n, c := range data[2:min(len(data), 64)] {
		switch {
		case c == 'm':
			return data[:n+3]
		case c != ';' && c != ':' && (c < '0' || c > '9'):
			return nil
		}
	}
	return nil
}
