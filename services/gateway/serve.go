package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Handler is the whole HTTP edge.
func (s *Service) Handler() http.Handler { return s.handler }

// At a stop, requests are answered for stopGrace, and who has connected is heard for
// speakWithin.
const stopGrace, speakWithin = 5 * time.Second, time.Second

// Server is an HTTP server for Handler. Answers have no deadline, since a
// followed log lasts as long as its build.
func (s *Service) Server() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		TLSConfig:         s.tls,
		ErrorLog:          slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
	}
}

// Serve serves Server on lis, which it closes, until ctx ends. Then followed
// logs end at once and other requests have 5 s; who has connected and asked for nothing
// yet has a second to do so. It is called once.
func (s *Service) Serve(ctx context.Context, lis net.Listener) error {
	server := s.Server()
	var busy conversations
	server.ConnState = busy.is
	calls := &lastCalls{Listener: lis}
	group, ctx := errgroup.WithContext(ctx)
	served := make(chan struct{})
	group.Go(func() error {
		defer close(served)
		serve := server.Serve
		if s.tls != nil {
			serve = func(lis net.Listener) error { return server.ServeTLS(lis, "", "") }
		}
		if err := serve(calls); ctx.Err() == nil || !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", lis.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		s.endServing()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		// Server.Shutdown would hang up on whoever's request is not read yet.
		server.SetKeepAlivesEnabled(false)
		_ = calls.Close()
		<-served
		if !busy.end(grace) {
			s.deps.Log.WarnContext(ctx, "requests that lasted longer than the grace period of a stop are cut off", "grace", stopGrace)
		}
		return server.Close()
	})
	return group.Wait()
}

// conversations are the connections that a request may come by, or is answered by.
type conversations struct {
	mu      sync.Mutex
	open    map[net.Conn]http.ConnState
	changed chan struct{} // closed at the next change
}

// is notes the state of one.
func (c *conversations) is(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]http.ConnState{}
	}
	delete(c.open, conn)
	if state == http.StateNew || state == http.StateActive {
		c.open[conn] = state
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// end waits until all requests are answered, which it tells, or ctx ends. Who says
// nothing is heard for a while.
func (c *conversations) end(ctx context.Context) bool {
	silence := time.NewTimer(speakWithin)
	defer silence.Stop()
	for heard := true; ; {
		c.mu.Lock()
		busy := 0
		for _, state := range c.open {
			if heard || state == http.StateActive {
				busy++
			}
		}
		changed := make(chan struct{})
		c.changed = changed
		c.mu.Unlock()
		if busy == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-silence.C:
			heard = false
		case <-changed:
		}
	}
}
