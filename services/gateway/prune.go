package gateway

import (
	"context"
	"time"
)

const (
	pruneEvery = time.Minute
	// Few rows at a time, with a pause: those who deliver wait for the same writer.
	pruneRows  = 200
	prunePause = 50 * time.Millisecond
)

// prune removes payloads, and later whole deliveries, that are older than they
// are kept. What a receiver has not decided stays.
func (s *Service) prune(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		for _, old := range []struct {
			table string
			kept  time.Duration
		}{{"payloads", s.deps.Retention.Payloads}, {"deliveries", s.deps.Retention.Deliveries}} {
			if old.kept <= 0 {
				continue
			}
			if err := s.pruneTable(ctx, old.table, s.deps.Now().Add(-old.kept)); err != nil && ctx.Err() == nil {
				s.deps.Log.WarnContext(ctx, "pruning failed; old rows stay until the next minute", "table", old.table, "error", err)
			}
		}
		if err := s.giveUpForsaken(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "giving up what waits for receivers that are no more failed; it is done in a minute", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) pruneTable(ctx context.Context, table string, before time.Time) error {
	pause := time.NewTicker(prunePause)
	defer pause.Stop()
	for {
		n, err := s.store.prune(ctx, table, before, pruneRows)
		if err != nil || n < pruneRows {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// giveUpForsaken keeps for a person what waits for a receiver that is set no more. It
// takes its time, since another gateway may have been started with the receiver already.
func (s *Service) giveUpForsaken(ctx context.Context) error {
	if s.deps.Outside.TryFor <= 0 {
		return nil
	}
	var served []string
	for _, r := range s.relays {
		served = append(served, r.receiver)
	}
	now := s.deps.Now()
	return s.store.forsake(ctx, served, now, now.Add(-s.deps.Outside.TryFor))
}
