package gateway

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/kittest"
)

func TestHealthPageSaysWhatIsWrong(t *testing.T) {
	clock := kittest.NewClock(time.Unix(1_800_000_000, 0))
	w := onSQLite(t, func(d *Deps) { d.Now = clock.Now })
	code, body := w.get("/health")
	if code != 200 || !strings.Contains(body, "Something is wrong") || !strings.Contains(body, "does not say which engine") {
		t.Errorf("without an engine: %d %s", code, body)
	}
	w.rooms.engine.mu.Lock()
	w.rooms.engine.answer = &schedulerv1.GetEngineResponse{Name: "docker"}
	w.rooms.engine.mu.Unlock()
	clock.Advance(5 * time.Second)
	if _, body = w.get("/health"); !strings.Contains(body, "All is well") || !strings.Contains(body, ">docker<") || strings.Contains(body, ">down<") {
		t.Errorf("with one: %s", body)
	}
	w.rooms.engine.mu.Lock()
	w.rooms.engine.answer = &schedulerv1.GetEngineResponse{Name: "docker", AwayTime: timestamppb.New(clock.Now())}
	asked := w.rooms.engine.asked
	w.rooms.engine.mu.Unlock()
	for range 10 { // anybody may ask
		w.get("/health")
	}
	w.rooms.engine.mu.Lock()
	if w.rooms.engine.asked != asked {
		t.Errorf("the engine was asked %d times more within five seconds", w.rooms.engine.asked-asked)
	}
	w.rooms.engine.mu.Unlock()
	clock.Advance(5 * time.Second)
	if _, body = w.get("/health"); !strings.Contains(body, "Something is wrong") || !strings.Contains(body, "nothing new begins") {
		t.Errorf("with one that is away: %s", body)
	}
}
