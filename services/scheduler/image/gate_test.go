package image

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// inside reports whether one has come in.
func (a *arrival) inside() bool {
	select {
	case <-a.let:
		return true
	default:
		return false
	}
}

// comes has somebody come who waits for as long as it takes.
func (g *gate) comes(tier string) *arrival {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := &arrival{tier, make(chan struct{})}
	g.waiting = append(g.waiting, one)
	g.admit()
	return one
}

func TestTheGateLetsOneTierInAtATimeInOrder(t *testing.T) {
	g := &gate{}
	all := []*arrival{g.comes("merged"), g.comes("merged"), g.comes("fork"), g.comes("fork"), g.comes("merged")}
	want := func(what string, want ...bool) {
		t.Helper()
		var got []bool
		for _, one := range all {
			got = append(got, one.inside())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v are inside, want %v", what, got, want)
		}
	}
	want("at first", true, true, false, false, false) // the last has come after a fork
	g.leave()
	want("one left", true, true, false, false, false)
	g.leave()
	want("both left", true, true, true, true, false)
	g.leave()
	g.leave()
	want("the forks left", true, true, true, true, true)

	// Who gives up keeps nobody waiting.
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := g.enter(ctx, "fork", func() { all = append(all, g.comes("merged")); cancel() })
	if !errors.Is(gaveUp, context.Canceled) || !all[len(all)-1].inside() {
		t.Errorf("%v, and the next is inside: %v", gaveUp, all[len(all)-1].inside())
	}
	g.leave()
	g.leave()
	if err := g.enter(t.Context(), "another", func() { t.Error("it waits though nobody is inside") }); err != nil {
		t.Error(err)
	}
}

func TestDownloadsOfAllBuildsShareTheRoom(t *testing.T) {
	shared := &room{}
	var all []*downloads
	for range maxDownloads / maxDownload {
		d := newDownloads(nil, t.TempDir(), shared)
		d.left, shared.used = 0, shared.used+maxDownload // it has all that it may
		all = append(all, d)
	}
	late := limited{newDownloads(nil, t.TempDir(), shared)}
	if n, err := late.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	all[0].close()
	all[0].close()
	if n, err := late.Write([]byte("x")); n != 1 || err != nil || shared.used != maxDownloads-maxDownload+1 {
		t.Errorf("wrote %d, %v; %d are used", n, err, shared.used)
	}
	late.left = 0
	if n, err := late.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("beyond its own share: wrote %d, %v", n, err)
	}
}
