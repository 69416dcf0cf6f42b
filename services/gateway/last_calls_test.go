package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/forge-ci/forge/services/kit/kittest"
)

// Whoever had connected when the listener was closed is heard, in their order.
func TestWhoHasConnectedIsHeardAtTheEnd(t *testing.T) {
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lastCalls{Listener: inner}
	callers := make([]net.Conn, 5)
	for n := range callers {
		if callers[n], err = (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer callers[n].Close()
	}
	for range 2 { // the second finds it closed
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it was served until %v", err)
	}
	for _, caller := range callers {
		if _, err := io.WriteString(caller, "POST / HTTP/1.0\r\nHost: forge\r\nContent-Length: 5\r\n\r\nhello"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(caller)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 200 OK") || !strings.HasSuffix(string(answer), "hello") {
			t.Errorf("answered %q, %v", answer, err)
		}
	}
	_, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
	kittest.Want(t, err != nil, true, "nobody listens")
}
