package store

import "testing"

func TestSubscriberHearsOfAChangeOnceAndLeavesNothing(t *testing.T) {
	n := newNotifier()
	changed, leave := n.Subscribe("a", "b")
	n.notify("a")
	n.notify("b", "c")
	<-changed
	select {
	case <-changed:
		t.Error("two changes in a row are two signals")
	default:
	}
	leave()
	n.notify("a")
	if len(changed) != 0 || len(n.topics) != 0 {
		t.Errorf("after leaving: %d signals, %d topics", len(changed), len(n.topics))
	}
}
