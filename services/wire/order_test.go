package wire_test

import (
	"net/http"
	"testing"
)

// A delivery comes while the gateway is alone, the others follow, and later each
// service is away for a while: whatever was accepted meanwhile is built and told.
func TestServicesStartAndRestartInAnyOrder(t *testing.T) {
	for _, order := range [][]string{
		{"gateway", "reporter", "scheduler", "config"},
		{"gateway", "config", "scheduler", "reporter"},
	} {
		t.Run(order[1]+" second", func(t *testing.T) {
			w := newWorld(t, hello())
			w.lay(t, deployment{apart: true})
			w.begin(t, w.process("gateway"))
			w.awaitUp(t)
			w.sim.SetWebhook(w.http+"/v1/listen", webhookSecret)
			_, early := w.propose(t, "early", files("greeting", "hello at dawn\n"))
			w.allAccepted(t)
			for _, room := range order[1:] {
				w.begin(t, w.process(room))
			}
			w.shows(t, early, "forge/test", "success")

			for _, room := range order {
				if room != "gateway" {
					w.process(room).stop(t)
				}
				_, sha := w.propose(t, "without-"+room, files("greeting", "hello without "+room+"\n"))
				w.allAccepted(t)
				if room == "gateway" { // with what it has just accepted
					w.process(room).stop(t)
				}
				w.process(room).begin(t)
				w.shows(t, sha, "forge/test", "success")
			}
			w.awaitUp(t)
		})
	}
}

// allAccepted waits until GitHub has delivered all, and holds that each delivery was
// answered 200.
func (w *world) allAccepted(t *testing.T) {
	t.Helper()
	if err := w.sim.WaitDeliveries(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range w.sim.Deliveries() {
		if d.StatusCode != http.StatusOK {
			t.Fatalf("GitHub was answered %d, %s", d.StatusCode, d.Status)
		}
	}
}
