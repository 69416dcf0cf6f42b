package access_test

import (
	"fmt"
	"testing"
	"time"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

func TestListsLeaveOutWhatSomebodyMayNotSee(t *testing.T) {
	w := newWorld(t, nil)
	for n := range 40 { // every tenth is public, every fourth of zeta, where nobody may look
		full := "acme/shop"
		switch {
		case n%10 == 0:
			full = "acme/site"
		case n%4 == 1:
			full = "zeta/gone"
		}
		w.rooms.listed = append(w.rooms.listed, full)
	}
	client := schedulerv1.NewBuildServiceClient(w.conn)
	for login, want := range map[string]int{"": 4, "ended": 4, "stan": 4, "rita": 30, "Boss": 40, "admin": 40} {
		ctx, token, seen, pages := w.as(login), "", 0, 0
		for {
			answer, err := client.ListBuilds(ctx, &schedulerv1.ListBuildsRequest{PageToken: token, PageSize: 5})
			w.must(err)
			for _, b := range answer.GetBuilds() {
				if full := b.GetRepository().GetOwner() + "/" + b.GetRepository().GetName(); want < 40 && (full == "zeta/gone" || full == "acme/shop" && want == 4) {
					t.Errorf("%q sees %v", login, b)
				}
			}
			if len(answer.GetBuilds()) > 5 {
				t.Errorf("%q has %d builds on a page of 5", login, len(answer.GetBuilds()))
			}
			seen, token, pages = seen+len(answer.GetBuilds()), answer.GetNextPageToken(), pages+1
			if token == "" || pages > 50 {
				break
			}
		}
		if seen != want {
			t.Errorf("%q sees %d builds on %d pages, want %d", login, seen, pages, want)
		}
	}
	// Items that name their repository by its name alone.
	for login, want := range map[string]int{"": 4, "rita": 30, "admin": 40} {
		answer, err := schedulerv1.NewEnvironmentServiceClient(w.conn).ListEnvironments(w.as(login), &schedulerv1.ListEnvironmentsRequest{})
		if err != nil || len(answer.GetEnvironments()) != want {
			t.Errorf("%q sees %d environments, %v", login, len(answer.GetEnvironments()), err)
		}
	}
	if _, err := client.ListBuilds(w.as("stan"), &schedulerv1.ListBuildsRequest{Repository: "acme/shop"}); !fault.Is(err, fault.Denied) {
		t.Errorf("stan names it: %v", err)
	}
}

// A refused call never reaches the room.
func TestRefusedCallsAreNotMade(t *testing.T) {
	w := newWorld(t, nil)
	client := schedulerv1.NewBuildServiceClient(w.conn)
	if _, err := client.CancelBuild(w.as("rita"), &schedulerv1.CancelBuildRequest{BuildId: "7:acme/shop"}); !fault.Is(err, fault.Denied) {
		t.Errorf("got %v", err)
	}
	if _, err := client.WatchLog(w.as("stan"), &schedulerv1.WatchLogRequest{BuildId: "7:acme/shop"}); !fault.Is(err, fault.Denied) {
		t.Errorf("got %v", err)
	}
	if n := w.rooms.calls(); n != 0 {
		t.Errorf("%d calls were made: %v", n, w.rooms.called)
	}
	_, err := client.CancelBuild(w.as("wes"), &schedulerv1.CancelBuildRequest{BuildId: "7:acme/shop"})
	w.must(err)
	if got := fmt.Sprint(w.rooms.called); got != "["+schedulerv1.BuildService_CancelBuild_FullMethodName+"]" {
		t.Errorf("made %s", got)
	}
}

// A log is followed for hours. Who may not see it any more sees no more of it.
func TestAFollowedLogEndsForWhoLosesAccess(t *testing.T) {
	w := newWorld(t, nil)
	log, err := schedulerv1.NewBuildServiceClient(w.conn).WatchLog(w.as("rita"), &schedulerv1.WatchLogRequest{BuildId: "7:acme/shop", Follow: true})
	w.must(err)
	for range 3 {
		line, err := log.Recv()
		if err != nil || len(line.GetData()) == 0 {
			t.Fatalf("got %v, %v", line, err)
		}
		w.clock.Advance(time.Minute)
	}
	w.must(w.sim.SetPermission("acme", "shop", "rita", "none"))
	w.clock.Advance(2 * time.Minute)
	if line, err := log.Recv(); !fault.Is(err, fault.Denied) || len(line.GetData()) != 0 {
		t.Errorf("got %v, %v", line, err)
	}
	if _, err := log.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

// A shell in which nothing happens is closed, too: its call ends, and the scheduler's with it.
func TestAnOpenShellEndsForWhoLosesAccess(t *testing.T) {
	w := newWorld(t, nil)
	shells := schedulerv1.NewShellServiceClient(w.conn)
	opened, err := shells.OpenShell(w.as("wes"), &schedulerv1.OpenShellRequest{BuildId: "7:acme/shop"})
	w.must(err)
	types := func() error {
		_, err := shells.SendToShell(w.as("wes"), &schedulerv1.SendToShellRequest{BuildId: "7:acme/shop", ShellId: "s1", Number: 1})
		return err
	}
	_, err = opened.Recv()
	w.must(err)
	w.must(types())
	w.must(w.sim.SetPermission("acme", "shop", "wes", "read"))
	w.clock.Advance(2 * time.Minute)
	if _, err := opened.Recv(); !fault.Is(err, fault.Denied) {
		t.Errorf("it goes on: %v", err)
	}
	if err := types(); !fault.Is(err, fault.Denied) {
		t.Errorf("what is typed arrives: %v", err)
	}
	select {
	case <-w.rooms.last.Done():
	default:
		t.Error("the scheduler is not told")
	}
}
