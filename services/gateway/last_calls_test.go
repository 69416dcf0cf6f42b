package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forge-ci/forge/services/kit/daemon"
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

// Who has connected is answered, also when the server stops before it hears the request;
// and while others connect all the time, each is answered or kept out.
func TestNobodyIsHungUpOnAtTheEnd(t *testing.T) {
	const request = "GET /nothing HTTP/1.0\r\nHost: forge\r\n\r\n"
	for range 10 {
		w := onSQLite(t, nil)
		lis, err := daemon.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		dial := func() (net.Conn, error) {
			return (&net.Dialer{Timeout: 50 * time.Millisecond}).DialContext(t.Context(), "tcp", lis.Addr().String())
		}
		ask := func(conn net.Conn) {
			defer conn.Close()
			_, _ = io.WriteString(conn, request) // what is wrong is seen below
			if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 404 Not Found") {
				t.Errorf("answered %q, %v", answer, err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		var serving, callers sync.WaitGroup
		serving.Go(func() {
			if err := w.service.Serve(ctx, lis); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		var heard atomic.Int32
		for range 8 {
			callers.Go(func() {
				for {
					conn, err := dial()
					switch {
					case err == nil:
						ask(conn)
						heard.Add(1)
					case ctx.Err() != nil:
						return
					}
				}
			})
		}
		silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		kittest.Eventually(t, 10*time.Second, func() error {
			if heard.Load() < 20 {
				return errors.New("too few are heard")
			}
			return nil
		})
		stop()
		callers.Wait() // all are kept out
		ask(silent)
		serving.Wait()
	}
}

// A browser that keeps a connection ready does not keep the server.
func TestWhoSaysNothingDelaysNoStop(t *testing.T) {
	w := onSQLite(t, nil)
	lis, err := daemon.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- w.service.Serve(ctx, lis) }()
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < speakWithin || took >= stopGrace {
		t.Errorf("the stop took %v", took)
	}
}
