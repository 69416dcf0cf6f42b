package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
// logs end at once and other requests have 5 s. It is called once.
func (s *Service) Serve(ctx context.Context, lis net.Listener) error {
	server := s.Server()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		serve := server.Serve
		if s.tls != nil {
			serve = func(lis net.Listener) error { return server.ServeTLS(lis, "", "") }
		}
		if err := serve(&lastCalls{Listener: lis}); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", lis.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		s.endServing()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			s.deps.Log.WarnContext(ctx, "HTTP shutdown failed; requests that lasted longer than the grace period are cut off", "error", err)
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}
