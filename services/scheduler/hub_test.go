package scheduler

import "testing"

func TestSubscriberHearsOfAChangeOnceAndLeavesNothing(t *testing.T) {
	h := newHub()
	changed, leave := h.subscribe("a", "b")
	h.notify("a")
	h.notify("b", "c")
	<-changed
	select {
	case <-changed:
		t.Error("two changes in a row are two signals")
	default:
	}
	leave()
	h.notify("a")
	if len(changed) != 0 || len(h.topics) != 0 {
		t.Errorf("after leaving: %d signals, %d topics", len(changed), len(h.topics))
	}
}
