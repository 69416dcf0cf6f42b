package store

import "testing"

func TestSubscriberHearsOfAChangeOnceAndLeavesNothing(t *testing.T) {
	n := newNotifier()
	changed, leave := n.Subscribe("a", "b")
	n.Notify("a")
	n.Notify("b", "c")
	<-changed
	select {
	case <-changed:
		t.Error("two changes in a row are two signals")
	default:
	}
	leave()
	n.Notify("a")
	if len(changed) != 0 || len(n.topics) != 0 {
		t.Errorf("after leaving: %d signals, %d topics", len(changed), len(n.topics))
	}
}
