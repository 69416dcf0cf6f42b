package logs

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/scheduler/store"
)

// tailKept is how much of a log is kept in memory for those who follow it.
const tailKept = 4 << 20

// tails are the logs that somebody reads just now. All who read one share it, so
// that they cost the store as much as one of them.
type tails struct {
	notifier *store.Notifier
	Look     func(ctx context.Context, buildID string, number int32) (TailState, error)
	Pages    func(ctx context.Context, buildID string, number int32) Page
	// lookAll is Look for several at once, by the name of the attempt. It may leave out some.
	lookAll func(ctx context.Context, of []store.AttemptKey) (map[string]TailState, error)

	mu   sync.Mutex
	Live map[string]*Tail // by the name of the attempt
}

// Tail is a log and those who read it.
type Tail struct {
	of    store.AttemptKey
	pages func(ctx context.Context) Page

	readers int // guarded by tails.mu
	stop    context.CancelFunc
	watcher sync.WaitGroup

	mu    sync.Mutex
	state TailState

	turn chan struct{} // holds one while somebody reads the store
	kept []LogChunk    // what was printed or read last; whose turn it is may touch it
	size int           // of kept, in bytes
}

// addition is what was just added to the log of an attempt.
type addition struct {
	attempt string
	chunk   LogChunk
}

// TailState is how a log stands.
type TailState struct {
	Size    int64
	Over    bool // that is all of it
	Err     error
	Changed chan struct{} // closed when there is another state
}

// Follow returns the log of an attempt as it stands now, or later. Who has joined
// leaves in the end.
func (l *Service) Follow(ctx context.Context, buildID string, number int32) (_ *Tail, leave func(), err error) {
	return l.Tails.join(ctx, buildID, number)
}

// EmptyTail is the log of a build that never printed.
func EmptyTail() *Tail { return &Tail{state: TailState{Over: true}} }

func (f *tails) join(ctx context.Context, buildID string, number int32) (_ *Tail, leave func(), err error) {
	state, err := f.Look(ctx, buildID, number)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name := store.AttemptName(buildID, number)
	log := f.Live[name]
	if log == nil {
		log = &Tail{of: store.AttemptKey{BuildID: buildID, Number: number}, turn: make(chan struct{}, 1), state: TailState{Changed: make(chan struct{})}}
		log.pages = func(ctx context.Context) Page { return f.Pages(ctx, buildID, number) }
		watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // it outlasts the first who came
		log.stop = stop
		log.watcher.Go(func() { f.watch(watching, log, buildID, number) })
		f.Live[name] = log
	}
	log.readers++
	log.become(state)
	return log, func() { f.leave(name, log) }, nil
}

func (f *tails) leave(name string, log *Tail) {
	f.mu.Lock()
	log.readers--
	last := log.readers == 0
	if last {
		delete(f.Live, name)
	}
	f.mu.Unlock()
	if last {
		log.stop()
		log.watcher.Wait()
	}
}

// printed has those who follow a log at its end see what is new without a look
// into the store.
func (f *tails) printed(p addition) {
	f.mu.Lock()
	log := f.Live[p.attempt]
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
	log.become(TailState{Size: p.chunk.Position + int64(len(p.chunk.Data))})
}

// followEvery is how often a process looks for what other replicas have stored of
// the logs that are read here. It is one query for all of them.
const followEvery = 500 * time.Millisecond

// followOthers has those who follow a log see what it gets through other replicas,
// until ctx ends.
func (f *tails) followOthers(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.mu.Lock()
		live := maps.Clone(f.Live)
		f.mu.Unlock()
		if len(live) == 0 {
			continue
		}
		var of []store.AttemptKey
		for _, tail := range live {
			of = append(of, tail.of)
		}
		states, err := f.lookAll(ctx, of)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "logs of other replicas not read", "retry_in", followEvery, "error", err)
		}
		for name, state := range states {
			live[name].become(state)
		}
	}
}

// watch looks at the log for all who read it.
func (f *tails) watch(ctx context.Context, log *Tail, buildID string, number int32) {
	changed, leave := f.notifier.Subscribe(store.LogTopic(buildID))
	defer leave()
	anyway := store.LookAnyway()
	defer anyway.Stop()
	for {
		state, err := f.Look(ctx, buildID, number)
		if ctx.Err() != nil {
			return
		}
		state.Err = err
		log.become(state)
		if state.Over {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-anyway.C:
		}
	}
}

// lookAtLog says how the log of an attempt stands.
func (l *Service) lookAtLog(ctx context.Context, buildID string, number int32) (TailState, error) {
	a, err := store.ReadAttempt(ctx, l.store.DB.Read(), buildID, number, "")
	if err != nil {
		return TailState{}, err
	}
	return TailState{Size: a.LogSize, Over: a.Ended}, nil
}

// lookAtLogs says how the logs of several attempts stand.
func (l *Service) lookAtLogs(ctx context.Context, of []store.AttemptKey) (map[string]TailState, error) {
	found, err := l.store.ReadAttempts(ctx, of)
	states := map[string]TailState{}
	for _, a := range found {
		states[a.Name()] = TailState{Size: a.LogSize, Over: a.Ended}
	}
	return states, err
}

// become has the readers see another state. What comes late changes nothing: a
// log only grows, until it is over.
func (l *Tail) become(next TailState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next.Err == nil && l.state.Err == nil && (next.Size < l.state.Size || next.Size == l.state.Size && next.Over == l.state.Over) {
		return
	}
	if next.Err != nil {
		next.Size, next.Over = l.state.Size, l.state.Over
	}
	close(l.state.Changed)
	next.Changed = make(chan struct{})
	l.state = next
}

// Now is how the log stands.
func (l *Tail) Now() TailState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Page reads the log for a reader: what another has just read is there already.
func (l *Tail) Page(ctx context.Context) Page {
	return func(offset int64) ([]LogChunk, error) {
		select {
		case l.turn <- struct{}{}:
			defer func() { <-l.turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		for n, c := range l.kept {
			if c.Position <= offset && offset < c.Position+int64(len(c.Data)) {
				return l.kept[n : n+1 : n+1], nil
			}
		}
		chunks, err := l.pages(ctx)(offset)
		l.keep(chunks...)
		return chunks, err
	}
}

// keep keeps what was printed or read last. It is the caller's turn.
func (l *Tail) keep(chunks ...LogChunk) {
	for _, c := range chunks {
		l.kept = append(l.kept, c)
		l.size += len(c.Data)
	}
	for l.size > tailKept {
		l.size -= len(l.kept[0].Data)
		l.kept = l.kept[1:]
	}
}
