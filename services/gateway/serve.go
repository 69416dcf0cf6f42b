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

const stopGrace = 5 * time.Second

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
// logs end at once and other requests have 5 s, also those of who has connected and
// said nothing yet. It is called once.
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
		// Once it shuts down, a server answers nobody whose request it has not read.
		server.SetKeepAlivesEnabled(false)
		_ = calls.Close()
		<-served
		busy.end(grace)
		if err := server.Shutdown(grace); err != nil {
			s.deps.Log.WarnContext(ctx, "HTTP shutdown failed; requests that lasted longer than the grace period are cut off", "error", err)
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}

// conversations are the connections that a request may come by, or is answered by.
type conversations struct {
	mu      sync.Mutex
	open    map[net.Conn]bool
	changed chan struct{} // nil, or closed at the next change
}

// is notes the state of one.
func (c *conversations) is(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		if c.open == nil {
			c.open = map[net.Conn]bool{}
		}
		c.open[conn] = true
		return
	}
	delete(c.open, conn)
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// end waits until there is none, or ctx ends.
func (c *conversations) end(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		if len(c.open) == 0 {
			c.mu.Unlock()
			return
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}
