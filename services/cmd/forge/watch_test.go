package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/forge-ci/forge/gen/forge/event/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// queueOf answers look after look, each with builds by their state.
type queueOf struct {
	schedulerv1.BuildServiceClient
	looks []states // nil: nobody answers
	at    int
	stop  func() // once all was looked at
}

var errAway = status.Error(codes.Unavailable, "connection refused")

func (q *queueOf) build(id string) *schedulerv1.Build {
	b := &schedulerv1.Build{
		Id: id, Repository: &eventv1.Repository{Owner: "acme", Name: "shop"}, Context: "forge/test", Sha: "3f2a91c0", State: q.looks[q.at][id],
		CreateTime: timestamppb.New(time.Unix(0, 0)),
	}
	if b.GetState() >= schedulerv1.Build_STATE_PASSED {
		b.EndTime = timestamppb.New(time.Unix(60, 0))
	}
	return b
}

func (q *queueOf) ListBuilds(context.Context, *schedulerv1.ListBuildsRequest, ...grpc.CallOption) (*schedulerv1.ListBuildsResponse, error) {
	if q.at++; q.at == len(q.looks) {
		q.stop()
		return nil, context.Canceled
	}
	if q.looks[q.at] == nil {
		return nil, errAway
	}
	answer := &schedulerv1.ListBuildsResponse{}
	for _, id := range []string{"b3", "b2", "b1"} {
		if state := q.looks[q.at][id]; state != 0 && state < schedulerv1.Build_STATE_PASSED {
			answer.Builds = append(answer.Builds, q.build(id))
		}
	}
	return answer, nil
}

func (q *queueOf) GetBuild(_ context.Context, req *schedulerv1.GetBuildRequest, _ ...grpc.CallOption) (*schedulerv1.GetBuildResponse, error) {
	if q.looks[q.at][req.GetBuildId()] == 0 {
		return nil, status.Error(codes.NotFound, "it was pruned")
	}
	return &schedulerv1.GetBuildResponse{Build: q.build(req.GetBuildId())}, nil
}

const (
	queued  = schedulerv1.Build_STATE_QUEUED
	running = schedulerv1.Build_STATE_RUNNING
	passed  = schedulerv1.Build_STATE_PASSED
	failed  = schedulerv1.Build_STATE_FAILED
)

// watches looks as often as there is something to see, and returns what was told.
func watches(t *testing.T, looks ...states) (told []string, last *page, err error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	w := newWatcher(&queueOf{looks: append([]states{{}}, looks...), stop: stop}, "")
	w.now = func() time.Time { return time.Unix(90, 0) }
	tick := make(chan time.Time, len(looks))
	for range looks {
		tick <- time.Time{}
	}
	err = w.run(ctx, screen{
		changed: func(b *schedulerv1.Build) error {
			told = append(told, b.GetId()+" "+stateLine(b))
			return nil
		},
		away: func(error) { told = append(told, "away") },
	}, tick)
	return told, &w.page, err
}

type states = map[string]schedulerv1.Build_State

func TestWhatChangesIsTold(t *testing.T) {
	told, last, err := watches(t,
		states{"b1": running, "b2": queued},
		states{"b1": running, "b2": queued},
		nil, nil, // Forge is started anew, and b1 ends meanwhile
		states{"b1": failed, "b2": running, "b3": queued},
		states{"b2": passed}, // b3 was pruned
	)
	if want := "b1 running, b2 queued, away, b1 failed, b2 running, b3 queued, b2 passed"; strings.Join(told, ", ") != want || !errors.Is(err, context.Canceled) {
		t.Errorf("told %q, %v; want %q", told, err, want)
	}
	if len(last.active) != 0 || len(last.ended) != 2 || last.ended[0].GetId() != "b2" || last.away != nil {
		t.Errorf("the last page is %+v", last)
	}
	if _, _, err := watches(t, nil); !errors.Is(err, errAway) {
		t.Errorf("where none ever answered: %v", err)
	}
}

func TestAPageFitsItsScreen(t *testing.T) {
	b := (&queueOf{looks: []states{{"b1": running}}}).build("b1")
	b.Message = "step \x1b[2J 1 \xff"
	p := &page{at: time.Unix(90, 0), active: []*schedulerv1.Build{b}, ended: []*schedulerv1.Build{b}, away: errAway, more: true}
	var plain strings.Builder
	p.print(&plain)
	want := `00:01:30  1 running, 0 queued, 0 waiting, 0 blocked, and more
No answer, trying again: connection refused

acme/shop  test  3f2a91c  b1  1m30s  running: step [2J 1 ` + "\xff" + `

Ended:
acme/shop  test  3f2a91c  b1  1m30s  running: step [2J 1 ` + "\xff" + `
`
	if got := harmless(plain.String()); got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
	var text coloured
	p.print(&text)
	shown := fitted(text.shown(), "the last line", 30, 5)
	lines := strings.Split(strings.TrimSuffix(shown, "\n"), "\n")
	if len(lines) != 4 || lines[3] != "the last line\x1b[K" {
		t.Errorf("%d lines on a screen of 5: %q", len(lines), shown)
	}
	for _, line := range lines {
		if cells := len(ownColoursAnywhere().ReplaceAllString(strings.TrimSuffix(line, "\x1b[K"), "")); cells > 30 || strings.Contains(line, "\x1b[2J") {
			t.Errorf("%d cells: %q", cells, line)
		}
	}
	if got := fitted("\xff\xfe", "the last line", 1, 0); got != "\uFFFD\x1b[K\n" {
		t.Errorf("what is no text: %q", got)
	}
}

func ownColoursAnywhere() *regexp.Regexp { return regexp.MustCompile(`\x1b\[[0-9]+m`) }
