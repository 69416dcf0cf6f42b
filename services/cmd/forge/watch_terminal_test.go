package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

// runs has one build that runs, with a message.
func (f *terminalForge) runs(message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.builds = []*schedulerv1.Build{{
		Id: "b1", Repository: &eventv1.Repository{Owner: "acme", Name: "shop"}, Context: "forge/test", Sha: "3f2a91c0", State: running, Message: message,
	}}
}

// lastPage is what was drawn last.
func (s *tty) lastPage() (page string, drawn int) {
	pages := strings.Split(s.text(), "\x1b[H")
	return pages[len(pages)-1], len(pages) - 1
}

// A page is drawn when it is time, and when its terminal has another size, cut to that.
func TestAWatchedPageIsDrawnAgain(t *testing.T) {
	t.Parallel()
	f := newTerminalForge(t)
	f.runs("one")
	changes := f.at(t, "watch", "--every=500ms")
	changes.shows(t, "running: one")
	f.runs("two")
	changes.shows(t, "running: two")

	f.runs(strings.Repeat("x", 100) + " the end")
	still := f.at(t, "watch", "--every=1h")
	still.shows(t, "running: xxx")
	if strings.Contains(still.text(), "the end") {
		t.Error("80 columns show more than they hold")
	}
	still.resize(t, 250, 24)
	still.shows(t, "the end")
	_, before := still.lastPage()
	still.resize(t, 30, 5)
	kittest.Eventually(t, soon, func() error {
		page, drawn := still.lastPage()
		if drawn == before || !strings.HasSuffix(page, "\x1b[J") {
			return errors.New("it is not drawn again")
		}
		lines := strings.Split(strings.TrimSuffix(page, "\r\n\x1b[J"), "\r\n")
		for _, line := range lines {
			if cells := len(ownColoursAnywhere().ReplaceAllString(strings.TrimSuffix(line, "\x1b[K"), "")); cells > 30 || len(lines) > 4 {
				return fmt.Errorf("%d cells in one of %d lines: %q", cells, len(lines), page)
			}
		}
		return nil
	})
}

// A serial line is a terminal that does not say how large it is.
func TestATerminalWithoutASizeIsWatched(t *testing.T) {
	t.Parallel()
	f := newTerminalForge(t)
	f.runs(strings.Repeat("x", 100) + " the end")
	s := f.at(t, "watch", "--every=1h")
	s.shows(t, "running: xxx")
	_, before := s.lastPage()
	s.resize(t, 0, 0)
	kittest.Eventually(t, soon, func() error {
		page, drawn := s.lastPage()
		if drawn == before || !strings.Contains(page, "running: xxx") || !strings.HasSuffix(page, "\x1b[J") {
			return fmt.Errorf("it is not drawn again: %q", page)
		}
		return nil
	})
}

func TestAWatchedTerminalIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *tty){
		"q":       func(t *testing.T, s *tty) { s.types(t, "x\x1b[Aq") },
		"Ctrl-C":  func(t *testing.T, s *tty) { s.types(t, "\x03") },
		"Ctrl-\\": func(t *testing.T, s *tty) { s.types(t, "\x1c") },
		"SIGHUP":  func(_ *testing.T, s *tty) { _ = s.cmd.Process.Signal(syscall.SIGHUP) },
		"SIGTERM": func(_ *testing.T, s *tty) { _ = s.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newTerminalForge(t)
			f.runs("one")
			s := f.at(t, "watch")
			s.shows(t, "running: one")
			s.shows(t, "q or Ctrl-C leaves")
			end(t, s)
			s.ends(t, exitFine)
		})
	}
}

// Ctrl-Z stops what the shell can continue, and else nothing; the page is there again then,
// and its keys.
func TestAWatchedPageOutlivesCtrlZ(t *testing.T) {
	t.Parallel()
	f := newTerminalForge(t)
	f.runs("one")
	s := f.at(t, "watch", "--every=1h")
	s.shows(t, "running: one")
	_, before := s.lastPage()
	s.types(t, "\x1a")
	kittest.Eventually(t, soon, func() error {
		if _, drawn := s.lastPage(); drawn == before {
			return errors.New("it is not drawn again")
		}
		return nil
	})
	s.types(t, "q")
	s.ends(t, exitFine)
}
