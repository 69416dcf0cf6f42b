package forgexec

import "bytes"

const sudoNotice = "forge: sudo cannot become root in builds: no program in them gains rights (no-new-privileges). " +
	"Run the commands as root, by an image whose user is root, or put what needs root into the image.\n"

// sudoWatch looks in a step's output for sudo's words about rights that it cannot
// gain. Newer ones name the flag; older ones take it for a file system's option.
type sudoWatch struct {
	seen bool
	tail []byte // of what came before; the words may come in pieces
}

func (w *sudoWatch) look(data []byte) {
	const most = 64 // as long as the longest
	if w.seen {
		return
	}
	text := append(w.tail, data...) //nolint:gocritic // the tail is this one's own
	for _, words := range []string{`"no new privileges" flag is set, which prevents sudo`, "sudo: effective uid is not 0, is "} {
		w.seen = w.seen || bytes.Contains(text, []byte(words))
	}
	w.tail = bytes.Clone(text[max(0, len(text)-most):])
}
