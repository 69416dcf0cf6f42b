package web

import (
	"net/http"
	"testing"
	"time"
)

// Whoever asks for a download and reads none of it keeps no place.
func TestReaderWhoReadsNothingIsLeft(t *testing.T) {
	slow := &steadyWriter{ResponseWriter: stuck{until: new(time.Time)}}
	slow.control = http.NewResponseController(slow.ResponseWriter)
	if _, err := slow.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	until := *slow.ResponseWriter.(stuck).until
	if left := time.Until(until); left <= 0 || left > writeWithin {
		t.Errorf("a write has %v", left)
	}
	if slow.done(); !slow.ResponseWriter.(stuck).until.IsZero() {
		t.Error("the connection keeps the deadline")
	}
}

type stuck struct {
	http.ResponseWriter
	until *time.Time
}

func (s stuck) SetWriteDeadline(until time.Time) error { *s.until = until; return nil }
func (s stuck) Write(p []byte) (int, error)            { return len(p), nil }
