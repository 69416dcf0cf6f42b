package scheduler

import (
	"context"
	"sync"
	"time"
)

// feedKept is how much of a log is kept in memory for those who follow it.
const feedKept = 4 << 20

// feeds are the logs that somebody reads just now. All who read one share it, so
// that they cost the store as much as one of them.
type feeds struct {
	hub   *hub
	look  func(ctx context.Context, buildID string, number int32) (feedState, error)
	pages func(ctx context.Context, buildID string, number int32) page

	mu   sync.Mutex
	live map[string]*feed // by the name of the attempt
}

// feed is a log and those who read it.
type feed struct {
	pages func(ctx context.Context) page

	readers int // guarded by feeds.mu
	stop    context.CancelFunc
	watcher sync.WaitGroup

	mu    sync.Mutex
	state feedState

	turn chan struct{} // holds one while somebody reads the store
	kept []logChunk    // what was printed or read last; whose turn it is may touch it
	size int           // of kept, in bytes
}

// addition is what was just added to the log of an attempt.
type addition struct {
	attempt string
	chunk   logChunk
}

// feedState is how a log stands.
type feedState struct {
	size    int64
	over    bool // that is all of it
	err     error
	changed chan struct{} // closed when there is another state
}

// join returns the log of an attempt as it stands now, or later. Who has joined
// leaves in the end.
func (f *feeds) join(ctx context.Context, buildID string, number int32) (_ *feed, leave func(), err error) {
	state, err := f.look(ctx, buildID, number)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name := attemptName(buildID, number)
	log := f.live[name]
	if log == nil {
		log = &feed{turn: make(chan struct{}, 1), state: feedState{changed: make(chan struct{})}}
		log.pages = func(ctx context.Context) page { return f.pages(ctx, buildID, number) }
		watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // it outlasts the first who came
		log.stop = stop
		log.watcher.Go(func() { f.watch(watching, log, buildID, number) })
		f.live[name] = log
	}
	log.readers++
	log.become(state)
	return log, func() { f.leave(name, log) }, nil
}

func (f *feeds) leave(name string, log *feed) {
	f.mu.Lock()
	log.readers--
	last := log.readers == 0
	if last {
		delete(f.live, name)
	}
	f.mu.Unlock()
	if last {
		log.stop()
		log.watcher.Wait()
	}
}

// printed has those who follow a log at its end see what is new without a look
// into the store.
func (f *feeds) printed(p addition) {
	f.mu.Lock()
	log := f.live[p.attempt]
	f.mu.Unlock()
	if log == nil {
		return
	}
	select {
	case log.turn <- struct{}{}:
		log.keep(p.chunk)
		<-log.turn
	default: // whoever reads the store will find it there
	}
	log.become(feedState{size: p.chunk.position + int64(len(p.chunk.data))})
}

// watch looks at the log for all who read it.
func (f *feeds) watch(ctx context.Context, log *feed, buildID string, number int32) {
	changed, leave := f.hub.subscribe(logTopic(buildID))
	defer leave()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		state, err := f.look(ctx, buildID, number)
		if ctx.Err() != nil {
			return
		}
		state.err = err
		log.become(state)
		if state.over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-poll.C:
		}
	}
}

// lookAtLog says how the log of an attempt stands.
func (s *Service) lookAtLog(ctx context.Context, buildID string, number int32) (feedState, error) {
	a, err := readAttempt(ctx, s.store.db.Read(), buildID, number, "")
	if err != nil {
		return feedState{}, err
	}
	return feedState{size: a.logSize, over: a.ended}, nil
}

// become has the readers see another state. What comes late changes nothing: a
// log only grows, until it is over.
func (l *feed) become(next feedState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next.err == nil && l.state.err == nil && (next.size < l.state.size || next.size == l.state.size && next.over == l.state.over) {
		return
	}
	if next.err != nil {
		next.size, next.over = l.state.size, l.state.over
	}
	close(l.state.changed)
	next.changed = make(chan struct{})
	l.state = next
}

func (l *feed) now() feedState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// page reads the log for a reader: what another has just read is there already.
func (l *feed) page(ctx context.Context) page {
	return func(offset int64) ([]logChunk, error) {
		select {
		case l.turn <- struct{}{}:
			defer func() { <-l.turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		for n, c := range l.kept {
			if c.position <= offset && offset < c.position+int64(len(c.data)) {
				return l.kept[n : n+1 : n+1], nil
			}
		}
		chunks, err := l.pages(ctx)(offset)
		l.keep(chunks...)
		return chunks, err
	}
}

// keep keeps what was printed or read last. It is the caller's turn.
func (l *feed) keep(chunks ...logChunk) {
	for _, c := range chunks {
		l.kept = append(l.kept, c)
		l.size += len(c.data)
	}
	for l.size > feedKept {
		l.size -= len(l.kept[0].data)
		l.kept = l.kept[1:]
	}
}
