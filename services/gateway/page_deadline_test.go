package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A followed log outlives the deadline for reading a request, and ends when the
// server stops.
func TestFollowedLogLastsUntilTheServerStops(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log, w.rooms.builds.left = failedBuild(), "first line\n", make(chan struct{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := w.service.Serve(ctx, lis); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+lis.Addr().String()+"/builds/b1/log?follow", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); line != "first line\n" {
		t.Errorf("%q %v", line, err)
	}
	stopped := time.Now()
	cancel()
	if rest, err := io.ReadAll(lines); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q %v", rest, err)
	}
	serving.Wait()
	if took := time.Since(stopped); took >= stopGrace {
		t.Errorf("the stop took %v", took)
	}
}

// Nor does the deadline keep the server from noticing that the reader left.
func TestReaderOfAFollowedLogWhoLeavesIsNoticed(t *testing.T) {
	w := onSQLite(t, nil)
	w.rooms.builds.build, w.rooms.builds.log, w.rooms.builds.left = failedBuild(), "first line\n", make(chan struct{})
	server := w.service.Server()
	server.ReadTimeout = time.Second
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(lis) })
	conn, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /builds/b1/log?follow HTTP/1.1\r\nHost: x\r\n\r\n")
	answer := bufio.NewReader(conn)
	for line := ""; !strings.Contains(line, "first line"); {
		if line, err = answer.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(server.ReadTimeout + 300*time.Millisecond))
	rest, err := io.ReadAll(answer)
	if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() {
		t.Errorf("it ended: %q %v", rest, err)
	}
	conn.Close()
	select {
	case <-w.rooms.builds.left:
	case <-time.After(patience):
		t.Error("the log is still followed for nobody")
	}
	server.Close()
	serving.Wait()
}
