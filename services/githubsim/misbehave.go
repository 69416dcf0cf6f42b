package githubsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Misbehaviour is what goes wrong with the calls that it matches. They wait for Latency and a random time up to Jitter;
// then one of Status, Cut, Half, CutAfter and HangAfter spoils the response. Where several match a call, their waits add up and the first that
// spoils counts. Config.Seed seeds the random numbers.
type Misbehaviour struct {
	Route string  // a part of the method and route, or of the method and path: "POST", "/statuses/{sha}", "GET /repos/acme"; empty: all calls
	Share float64 // of the calls it is about, up to 1; 0: all of them
	Times int     // calls after which it is over; 0: it goes on

	Latency time.Duration
	Jitter  time.Duration

	Status     int           // answered in place of GitHub's own, as 502
	RetryAfter time.Duration // goes with Status; in whole seconds, rounded up
	Cut        bool          // the connection ends without an answer
	Half       bool          // the connection ends in the middle of GitHub's own answer
	CutAfter   int           // bytes of GitHub's own answer after which the connection ends; nothing is wrong with a shorter one
	HangAfter  int           // such bytes after which no more come, until the caller hangs up
	CarriedOut bool          // with Status or Cut: GitHub does what it was asked, and only then things go wrong
}

// An activeMisbehaviour is one that has begun. left counts down the calls of one with Times.
type activeMisbehaviour struct {
	Misbehaviour
	left int
}

// Misbehave begins a misbehaviour; undo ends it.
func (s *Controls) Misbehave(m Misbehaviour) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &activeMisbehaviour{Misbehaviour: m, left: m.Times}
	s.misbehaviours = append(s.misbehaviours, one)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.misbehaviours = slices.DeleteFunc(s.misbehaviours, func(other *activeMisbehaviour) bool { return other == one })
	}
}

// Behave ends all misbehaviour.
func (s *Controls) Behave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.misbehaviours = nil
}

func newChance(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// A trouble is what goes wrong with one call.
type trouble struct {
	delay time.Duration
	spoil Misbehaviour
}

func (s *front) trouble(rt route, c *call) trouble {
	var t trouble
	_, pattern, _ := strings.Cut(rt.pattern, " ")
	for _, m := range s.misbehaviours {
		about := strings.Contains(c.Method+" "+pattern, m.Route) || strings.Contains(c.Method+" "+c.URL.Path, m.Route)
		if !about || m.Share > 0 && s.chance.Float64() >= m.Share {
			continue
		}
		m.left--
		t.delay += m.Latency
		if m.Jitter > 0 {
			t.delay += time.Duration(s.chance.Int64N(int64(m.Jitter)))
		}
		if m.spoils() && !t.spoil.spoils() {
			t.spoil = m.Misbehaviour
		}
	}
	s.misbehaviours = slices.DeleteFunc(s.misbehaviours, func(m *activeMisbehaviour) bool { return m.Times > 0 && m.left == 0 })
	return t
}

func (m Misbehaviour) spoils() bool { return m.Status != 0 || m.Cut || m.breaks() }

// breaks reports whether GitHub's own answer ends too early.
func (m Misbehaviour) breaks() bool { return m.Half || m.CutAfter > 0 || m.HangAfter > 0 }

// lost reports whether the call never reaches GitHub.
func (t trouble) lost() bool { return t.spoil.spoils() && !t.spoil.breaks() && !t.spoil.CarriedOut }

// silent reports whether the caller gets no response.
func (t trouble) silent() bool { return t.spoil.Cut }

// instead returns the response that replaces GitHub's own; nil where none does.
func (t trouble) instead() *response {
	switch m := t.spoil; {
	case m.Cut:
		return &response{}
	case m.Status == http.StatusForbidden, m.Status == http.StatusTooManyRequests:
		return slowDown(m.Status, tooFast, m.RetryAfter)
	case m.Status >= http.StatusInternalServerError:
		return refuse(m.Status, "Server Error").retryAfter(m.RetryAfter)
	case m.Status != 0:
		return refuse(m.Status, http.StatusText(m.Status)).retryAfter(m.RetryAfter)
	}
	return nil
}

func (t trouble) pause(ctx context.Context) {
	if t.delay == 0 {
		return
	}
	timer := time.NewTimer(t.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// write sends the response, or the part of it that the misbehaviour lets through.
func (t trouble) write(ctx context.Context, w http.ResponseWriter, res *response) error {
	if t.spoil.Cut {
		panic(http.ErrAbortHandler) // the one way to end a connection without an answer
	}
	if at := max(t.spoil.CutAfter, t.spoil.HangAfter); at > 0 {
		return t.writeUpTo(ctx, at, w, res)
	}
	if !t.spoil.Half {
		return res.write(w)
	}
	var whole bytes.Buffer
	if res.stream != nil {
		if err := res.stream(&whole); err != nil {
			return err
		}
	} else {
		whole.Write(res.raw)
	}
	res.header.Set("Content-Length", strconv.Itoa(whole.Len()))
	half := &response{status: res.status, header: res.header, raw: whole.Bytes()[:whole.Len()/2]}
	if err := half.write(w); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	panic(http.ErrAbortHandler)
}

// writeUpTo sends that many bytes of the response, and no more.
func (t trouble) writeUpTo(ctx context.Context, most int, w http.ResponseWriter, res *response) error {
	short := &shortWriter{ResponseWriter: w, left: most}
	if err := res.write(short); !errors.Is(short.err, errCutShort) {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	if t.spoil.CutAfter == 0 {
		<-ctx.Done()
	}
	panic(http.ErrAbortHandler)
}

// A shortWriter takes so many bytes and fails from the next on.
type shortWriter struct {
	http.ResponseWriter

	left int
	err  error // errCutShort once it has failed
}

var errCutShort = errors.New("a misbehaviour cuts the answer short")

func (w *shortWriter) Write(content []byte) (int, error) {
	if len(content) <= w.left {
		w.left -= len(content)
		return w.ResponseWriter.Write(content)
	}
	n, err := w.ResponseWriter.Write(content[:w.left])
	w.left -= n
	if err == nil {
		w.err = errCutShort
		err = errCutShort
	}
	return n, err
}

// String describes a misbehaviour in a line.
func (m Misbehaviour) String() string {
	var parts []string
	add := func(when bool, format string, values ...any) {
		if when {
			parts = append(parts, fmt.Sprintf(format, values...))
		}
	}
	add(m.Latency > 0 || m.Jitter > 0, "wait %v to %v", m.Latency, m.Latency+m.Jitter)
	add(m.Status != 0, "answer %d", m.Status)
	add(m.RetryAfter > 0, "with Retry-After %v", m.RetryAfter)
	add(m.Cut, "cut the connection")
	add(m.Half, "cut the answer in half")
	add(m.CutAfter > 0, "cut the answer after %d bytes", m.CutAfter)
	add(m.HangAfter > 0, "hang after %d bytes of the answer", m.HangAfter)
	add(m.CarriedOut, "after it was carried out")
	add(m.Share > 0, "for %g %%", m.Share*100)
	add(m.Route != "", "of %s", m.Route)
	add(m.Times > 0, "%d times", m.Times)
	return strings.Join(parts, ", ")
}
